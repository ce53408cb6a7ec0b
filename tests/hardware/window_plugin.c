/* A TCG plugin of QEMU that counts the instructions from one address to another, to check the tick window with: it
 * shares neither clock nor timer. Arguments: out=FILE,open=ADDRESS,close=ADDRESS. Each window is a line of FILE:
 * how many instructions were executed after the one at `open` and before the one at `close`.
 *
 * Debian's QEMU has plugins on and ships no header: the declarations are those of QEMU's docs/devel/tcg-plugins.rst. */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
typedef void (*tb_translated_t)(qemu_plugin_id_t id, struct qemu_plugin_tb *block);
typedef void (*executed_t)(unsigned int cpu, void *data);

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *instruction);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, tb_translated_t callback);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *instruction, executed_t callback,
                                            enum qemu_plugin_cb_flags flags, void *data);

int qemu_plugin_version = 1;
int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv);

static FILE *out;
static uint64_t open_at, close_at, executed;
static bool is_open;

static void on_instruction(unsigned int cpu, void *data)
{
    const uint64_t address = (uint64_t)(uintptr_t)data;

    (void)cpu;
    if (is_open && address == close_at) {
        fprintf(out, "%" PRIu64 "\n", executed);
        fflush(out);
        is_open = false;
    }
    executed++;
    if (address == open_at) {
        executed = 0;
        is_open = true;
    }
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    size_t i;

    (void)id;
    for (i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
        void *address = (void *)(uintptr_t)qemu_plugin_insn_vaddr(instruction);

        qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_instruction, QEMU_PLUGIN_CB_NO_REGS, address);
    }
}

/* The value of `name` among the arguments, or the end of this run. */
static const char *argument(const char *name, int argc, char **argv)
{
    const size_t length = strlen(name);
    int i;

    for (i = 0; i < argc; i++) {
        if (strncmp(argv[i], name, length) == 0 && argv[i][length] == '=') {
            return argv[i] + length + 1;
        }
    }
    fprintf(stderr, "window plugin: %s= is missing\n", name);
    exit(1);
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    (void)info;
    open_at = strtoull(argument("open", argc, argv), NULL, 0);
    close_at = strtoull(argument("close", argc, argv), NULL, 0);
    out = fopen(argument("out", argc, argv), "w");
    if (out == NULL) {
        perror("window plugin");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}
