# GNU toolchain for AArch64 Linux, with QEMU where tests run: cmake -B ../build -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake
# For Android use the toolchain file of the NDK, which Gradle does by itself (android/).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_EXE_LINKER_FLAGS_INIT "-static")
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
