"""Recipes: what to do for a target, as data. `recipes/*.toml` are shipped; a path to a file of one's own works as well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any, Literal

from embridge_edge.artifacts import sha256_of
from embridge_edge.compression.observers import OBSERVERS, Observer
from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import ChainPlan
from embridge_edge.tables import at_least, build, changed, one_of, read_table, shipped_tables

SPLITS = ("session", "wearer", "day", "repetition", "emg2pose_user", "emg2pose_stage", "emg2pose_user_stage")


def _check_training(plan: TrainPlan | DistillPlan) -> None:
    at_least(plan, 2, "batch")
    at_least(plan, 0, "gain_jitter", "channel_jitter", "rotation", "noise", "channel_drop", "label_smoothing")
    if plan.most_passes is not None and plan.most_passes <= 0:
        raise EdgeError(f"most_passes is {plan.most_passes:g}; give a number above 0.")
    if isinstance(plan, TrainPlan) and plan.temperature <= 0:
        raise EdgeError(f"temperature is {plan.temperature:g}; give a number above 0.")


@dataclass(frozen=True)
class WindowPlan:
    """Which windows count.

    Attributes:
        guard_ms: a window counts for its gesture when all its samples lie at least this long behind a change of label.
        ramp_ms: how long a hand takes from one canonical pose to the next.
        hold_out_gestures: gestures that no training step sees; they are judged by their pose alone.
        near_rad: leave out of training what comes this near to a held-out gesture's canonical pose, too, as the root mean
            square over the known angles; 0 leaves nothing out.
        gestures_from: "labels", or "stages" of the protocol, as emg2pose has them: each a gesture, or a group of `stage_groups`.
        stage_groups: stages by group; a stage in none has no gesture.
    """

    guard_ms: float = 300.0
    ramp_ms: float = 300.0
    hold_out_gestures: tuple[str, ...] = ()
    near_rad: float = 0.0
    gestures_from: Literal["labels", "stages"] = "labels"
    stage_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at_least(self, 0, "guard_ms", "ramp_ms", "near_rad")
        one_of(self, "gestures_from", ("labels", "stages"))
        twice = [stage for stage, count in Counter(chain(*self.stage_groups.values())).items() if count > 1]
        if twice:
            raise EdgeError(f"stage_groups has the stage {twice[0]!r} twice; name each once.")
        if self.stage_groups and self.gestures_from != "stages":
            raise EdgeError('stage_groups needs gestures_from = "stages".')


@dataclass(frozen=True)
class TeacherPlan:
    """Shape of the EMBridge teacher. Widths are in features, blocks are Transformer blocks.

    Queries and blocks as the paper gives them; widths are unknown there (the sibling CPEP has 256) and sized here for two
    cores.

    Attributes:
        patch_ms: length of an EMG patch (one frame for a chain with features).
        emg_encoder: what follows the EMG tower's stem: "transformer" as in the paper, or "convolutions", residual blocks over time,
            which learn more in the same minutes where recordings are few (docs/embridge.md).
        readout: what reads the EMG tokens: "queries", the Q-Former of EMBridge; "cls", one token of the tower as in CPEP; or
            "mean", their mean as it is, which nothing needs to be trained for (`embedding` is then `emg_width`).
    """

    patch_ms: float = 50.0
    emg_encoder: Literal["transformer", "convolutions"] = "transformer"
    readout: Literal["queries", "cls", "mean"] = "queries"
    emg_width: int = 64
    emg_blocks: int = 4
    pose_width: int = 64
    pose_blocks: int = 2
    query_blocks: int = 4
    queries: int = 16
    heads: int = 4
    embedding: int = 64
    dropout: float = 0.0

    def __post_init__(self) -> None:
        at_least(self, 1, "emg_width", "emg_blocks", "pose_width", "pose_blocks", "query_blocks", "queries", "heads")
        at_least(self, 1, "embedding")
        one_of(self, "emg_encoder", ("transformer", "convolutions"))
        one_of(self, "readout", ("queries", "cls", "mean"))
        if not 0 <= self.dropout < 1:
            raise EdgeError(f"dropout is {self.dropout:g}; give 0 or more and less than 1.")


@dataclass(frozen=True)
class Augmentation:
    """How EMG is varied while training; everything acts on the normalised input. Values were chosen on `myo_readings`, training on
    each person's first session and looking at the second-to-last: gains and rotation were .006 above
    none there, which is within the difference between two seeds (.013); they are kept because they slow overfitting.

    Attributes:
        gain_jitter: standard deviation of the logarithm of a gain common to all channels (load, electrode contact).
        channel_jitter: the same for each channel by itself.
        rotation: standard deviation of a rotation of the band, in electrode distances; for a ring of electrodes.
        noise: standard deviation of added white noise.
        channel_drop: share of channels silenced, or of their features set to the mean (a lifted electrode).
        time_shift: whether a window starts anywhere within its hop.
    """

    gain_jitter: float = 0.2
    channel_jitter: float = 0.3
    rotation: float = 0.4
    noise: float = 0.0
    channel_drop: float = 0.0
    time_shift: bool = True


SOFT_TARGETS = ("none", "cascle", "softclip", "smoothing")


@dataclass(frozen=True)
class TrainPlan(Augmentation):
    """How the teacher learns: masked pre-training of both towers, then alignment by

        pose_weight · InfoNCE + soft_weight · (CASCLe or what stands in its place) + reconstruct_weight · MPRL
        + label_weight · cross-entropy + regression_weight · (1 − cosine to the pose's embedding).

    The first three are the paper's; its α, λ, τ, τ_s, N_c, k_c, mask share and learning rate are unknown.

    Attributes:
        pose_steps, masked_steps, steps: optimisation steps of pose pre-training, EMG pre-training and alignment.
        most_passes: where `steps` of `batch` windows would be more passes over the training windows than this, all three are
            cut in proportion: few recordings need less time, and are overfitted by more. None never cuts.
        batch: windows in a batch, over all processes.
        draw_over: "gestures" draws gestures evenly and wearers within them, where windows without a gesture are one more;
            "wearers" draws wearers evenly and any of their windows, which is right for dense hand tracking.
        accumulate: batches whose gradients make one step. Each has its own negatives: that is not one larger batch.
        precision: "bf16" computes products in bfloat16 on a GPU; a CPU always computes in 32 bits.
        learning_rate: peak of a one-cycle schedule.
        mask_share: share of patches hidden in pre-training (the paper: half).
        temperature: τ of InfoNCE; with `learned_temperature` its first value (CPEP).
        pose_weight: weight of InfoNCE. both_ways: also from pose to EMG (CPEP); else from EMG to pose (EMBridge).
        best_query: align the query closest to its pose (the paper); else the mean over queries.
        whitened_poses: scale the pose embedding's directions to equal spread.
        start_from_pose: begin the Q-Former's self-attention with the pose encoder's (the paper).
        soft_targets: what stands beside InfoNCE: "cascle", or in its place "softclip" (similarity of the poses themselves) or
            "smoothing" (the same share for every other window). soft_weight: α. soft_temperature: τ_s.
        communities, nearest_communities: N_c centroids of k-means over pose embeddings, and the k_c that a pose keeps.
        soft_self: whether CASCLe's softmax over the batch keeps the pair itself in its denominator.
        reconstruct_weight: λ of the masked pose reconstruction. reconstruct_mask_share: share of pose frames hidden in it.
        label_weight, label_smoothing: cross-entropy of a linear head on the labels.
        regression_weight: of 1 − cosine to the pose's embedding (no part of the paper).
        mix_share: share of an alignment batch that is made of mixtures: windows of two gestures at once, from a window of each
            (learning/combinations.py). They need labels and rest.
    """

    pose_steps: int = 300
    masked_steps: int = 300
    steps: int = 2000
    most_passes: float | None = None
    batch: int = 256
    draw_over: Literal["gestures", "wearers"] = "gestures"
    accumulate: int = 1
    precision: Literal["32", "bf16"] = "32"
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    mask_share: float = 0.5
    temperature: float = 0.07
    learned_temperature: bool = False
    pose_weight: float = 1.0
    both_ways: bool = False
    best_query: bool = True
    whitened_poses: bool = True
    start_from_pose: bool = True
    soft_targets: Literal["none", "cascle", "softclip", "smoothing"] = "none"
    soft_weight: float = 1.0
    soft_temperature: float = 0.1
    communities: int = 64
    nearest_communities: int = 3
    soft_self: bool = False
    reconstruct_weight: float = 0.0
    reconstruct_mask_share: float = 0.5
    label_weight: float = 1.0
    label_smoothing: float = 0.05
    regression_weight: float = 0.0
    mix_share: float = 0.0

    def __post_init__(self) -> None:
        at_least(self, 0, "pose_steps", "masked_steps", "steps", "learning_rate", "weight_decay")
        at_least(self, 0, "pose_weight", "label_weight", "soft_weight", "reconstruct_weight", "regression_weight")
        at_least(self, 1, "accumulate", "communities", "nearest_communities")
        _check_training(self)
        one_of(self, "soft_targets", SOFT_TARGETS)
        one_of(self, "precision", ("32", "bf16"))
        one_of(self, "draw_over", ("gestures", "wearers"))
        if not 0 < self.mask_share < 1:
            raise EdgeError(f"mask_share is {self.mask_share:g}; give a share between 0 and 1.")
        if not 0 < self.reconstruct_mask_share <= 1:
            raise EdgeError(
                f"reconstruct_mask_share is {self.reconstruct_mask_share:g}; give a share above 0, up to 1."
            )
        if not 0 <= self.mix_share < 1:
            raise EdgeError(f"mix_share is {self.mix_share:g}; give 0 or more and less than 1.")
        if self.soft_temperature <= 0:
            raise EdgeError(f"soft_temperature is {self.soft_temperature:g}; give a number above 0.")
        if self.nearest_communities > self.communities:
            raise EdgeError(
                f"nearest_communities {self.nearest_communities} are more than the {self.communities} communities of the "
                "recipe; give fewer."
            )


@dataclass(frozen=True)
class StudentBudget:
    """What a student may take in int8; None (`false` in a recipe file) is no limit.

    Attributes:
        flash_bytes: weights, biases and multipliers. ram_bytes: activations alive at once. macs: multiply-accumulates of a window.
    """

    flash_bytes: int | None = None
    ram_bytes: int | None = None
    macs: int | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "flash_bytes", "ram_bytes", "macs")


@dataclass(frozen=True)
class StudentPlan:
    """Shape of the student.

    Attributes:
        family: "conv", convolutions that fold and few-query attention pooling; "transformer", a stem of convolutions, a Transformer
            encoder and a Q-Former whose norms fold; or "ring", convolutions that turn each hop's frame into a token, and others with
            attention pooling that read the tokens of a window: a device computes one token per hop.
        budget: of a convolutional student; `distill` then picks width and depth, and the next three say nothing.
        widths, kernels, strides: of a convolutional student, one per block; of a ring student those within a frame.
        queries: learned queries that read the time steps, or the tokens of a ring.
        width, blocks, heads, query_blocks: of a Transformer student. halvings: convolutions of stride 2 before it. A ring student's
            tokens have `width` values as well.
        reader_widths, reader_kernels: of the convolutions over a ring student's tokens.
        norm: of a Transformer student: "batch", which folds, or "layer", which stays in the graph and is hard on int8.
    """

    family: Literal["conv", "transformer", "ring"] = "conv"
    budget: StudentBudget | None = None
    widths: tuple[int, ...] = (32, 64, 64, 64)
    kernels: tuple[int, ...] = (5, 5, 3, 3)
    strides: tuple[int, ...] = (1, 2, 2, 1)
    queries: int = 4
    width: int = 64
    blocks: int = 2
    heads: int = 4
    query_blocks: int = 1
    halvings: int = 3
    norm: Literal["batch", "layer"] = "batch"
    reader_widths: tuple[int, ...] = (64,)
    reader_kernels: tuple[int, ...] = (3,)

    def __post_init__(self) -> None:
        at_least(
            self,
            1,
            "widths",
            "kernels",
            "strides",
            "queries",
            "width",
            "blocks",
            "heads",
            "reader_widths",
            "reader_kernels",
        )
        at_least(self, 0, "query_blocks", "halvings")
        one_of(self, "family", ("conv", "transformer", "ring"))
        one_of(self, "norm", ("batch", "layer"))
        if self.budget is not None and self.family != "conv":
            raise EdgeError("A budget picks the size of a convolutional student; leave it out, or set family to conv.")
        if not len(self.widths) == len(self.kernels) == len(self.strides) > 0 or max(self.strides) > 2:
            raise EdgeError(
                f"The student has widths {list(self.widths)}, kernels {list(self.kernels)} and strides "
                f"{list(self.strides)}; give one of each per block, strides of 1 or 2."
            )
        if not len(self.reader_widths) == len(self.reader_kernels) > 0:
            raise EdgeError(
                f"The student has reader_widths {list(self.reader_widths)} and reader_kernels {list(self.reader_kernels)}; "
                "give one of each per convolution."
            )


@dataclass(frozen=True)
class DistillPlan(Augmentation):
    """How the student learns from the teacher's embedding and tokens, the pose embeddings and the labels.

    Attributes: as those of `TrainPlan`, and

        teacher_weight: of 1 − cosine to the teacher's embedding, which is computed for `teacher_windows` windows.
        token_weight: of 1 − cosine to each of the teacher's query tokens, read from the student's.
        relation_weight: of the squared difference between the batch's cosines among students and among teachers.
        score_weight: of the divergence from the softened class scores of a teacher of others (an ONNX model).
        unlabelled_share: share of a batch that is windows without label and pose, where the recordings have some.
    """

    steps: int = 3000
    most_passes: float | None = None
    batch: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    teacher_weight: float = 1.0
    token_weight: float = 0.0
    relation_weight: float = 0.0
    score_weight: float = 0.0
    unlabelled_share: float = 0.0
    pose_weight: float = 0.5
    label_weight: float = 1.0
    label_smoothing: float = 0.05
    teacher_windows: int = 100_000

    def __post_init__(self) -> None:
        at_least(self, 0, "learning_rate", "weight_decay", "teacher_weight", "pose_weight", "label_weight")
        at_least(self, 0, "token_weight", "relation_weight", "score_weight")
        taught = (self.teacher_weight, self.token_weight, self.relation_weight, self.score_weight)
        if not any((*taught, self.pose_weight, self.label_weight)):
            raise EdgeError("Every weight of [distill] is 0, so nothing would be learnt; give one above 0.")
        at_least(self, 1, "steps", "teacher_windows")
        if not 0 <= self.unlabelled_share < 1:
            raise EdgeError(f"unlabelled_share is {self.unlabelled_share:g}; give 0 or more and less than 1.")
        _check_training(self)


Importance = Literal["taylor", "norm"]


@dataclass(frozen=True)
class PrunePlan:
    """Structured pruning of a trained student, and its distillation afterwards.

    Attributes:
        keep: share of the units of each group (channels, hidden units, heads, queries) that stay.
        layers: other shares for some groups: their names, as `prune` prints them, with shell patterns; the last that matches counts.
        budget: of a convolutional student; the greatest share that keeps to it then takes the place of `keep`.
        importance: what a unit is worth (`compression.pruning.importance`). windows: on which "taylor" measures it.
        steps, learning_rate: of the distillation that mends it; everything else about it is that of [distill]. No steps: no mending.
    """

    keep: float = 0.5
    layers: Mapping[str, float] = field(default_factory=dict)
    budget: StudentBudget | None = None
    importance: Importance = "taylor"
    windows: int = 512
    steps: int = 1500
    learning_rate: float = 3e-3

    def __post_init__(self) -> None:
        at_least(self, 1, "windows")
        at_least(self, 0, "steps", "learning_rate")
        one_of(self, "importance", ("taylor", "norm"))
        for name, share in (("keep", self.keep), *self.layers.items()):
            if not 0 < share <= 1:
                raise EdgeError(f"{name} is {share:g}; give a share above 0, up to 1.")

    def mending(self, plan: DistillPlan) -> DistillPlan:
        """The distillation of what pruning left."""
        return replace(plan, steps=self.steps, learning_rate=self.learning_rate)


TENSOR_KINDS = ("input", "linear", "attention", "other", "output")
"""Classes of activations, by what writes them: nothing, convolutions and fully connected layers, products and softmax of attention,
anything else, and the layer at the end."""


@dataclass(frozen=True)
class QatPlan:
    """Quantization-aware training: the student goes on learning with the rounding of int8 in it (docs/compression.md).

    Attributes:
        steps, learning_rate: of the training. The batch is that of [distill]; windows are taken as they are.
        share: of the training windows that it may see, even over gestures and wearers.
        label_weight: of the cross-entropy of the student's own, fixed label rows, besides the squared difference to what the student
            said before, over its variance. With 0 it only learns to say in int8 what it said in float.
    """

    steps: int = 500
    learning_rate: float = 1e-4
    share: float = 1.0
    label_weight: float = 0.0

    def __post_init__(self) -> None:
        at_least(self, 1, "steps")
        at_least(self, 0, "label_weight")
        if not self.learning_rate > 0:
            raise EdgeError(f"learning_rate is {self.learning_rate:g}; give more than 0.")
        if not 0 < self.share <= 1:
            raise EdgeError(f"share is {self.share:g}; give more than 0, up to 1.")


@dataclass(frozen=True)
class MixPlan:
    """Mixed precision: layers go to 16 bits one after the other, each time the one that helps most, as long as it helps
    (docs/compression.md).

    Attributes:
        windows: of the training side, on which the damage is measured.
        layers: in 16 bits at the most, those of `wide` among them.
        least_gain: share of the damage that a layer has to take off to be taken; less than .02 is within what another seed changes.
        size_bytes, peak_bytes, wide_macs: what the int8 model may take at the most: bytes of the graph, bytes of activations alive at
            once, and multiply-accumulates with a 16-bit operand, which cost a microcontroller about twice the others. None (`false`
            in a recipe file) is no limit.
    """

    windows: int = 300
    layers: int = 6
    least_gain: float = 0.02
    size_bytes: int | None = None
    peak_bytes: int | None = None
    wide_macs: int | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "windows", "layers", "size_bytes", "peak_bytes")
        at_least(self, 0, "wide_macs", "least_gain")


@dataclass(frozen=True)
class QuantizePlan:
    """Quantization: how many calibration windows, how ranges come from them, and whether the student learns with them.

    Attributes:
        windows: of the calibration set. most_saturated: share of the judged samples that may lie outside its range.
        observer: how values become a range (`compression.observers.range_of`).
        observers: others for classes of activations: names of `TENSOR_KINDS` to observers.
        percentile: share of the values that the percentile observer keeps.
        wide: layers whose outputs have 16 bits (and all that reads them computes in 16); names as in `check --layers`, with shell
            patterns.
        mix: search for more of them; None does not.
        bias_correction: shift biases so that every channel keeps its mean; with qat, those that it begins with.
        equalise: even out the channels of neighbouring layers before quantizing.
        qat: train with rounding, from these ranges on; None quantizes the student as it is.
    """

    windows: int = 512
    most_saturated: float = 0.001
    observer: Observer = "minmax"
    observers: Mapping[str, Observer] = field(default_factory=dict)
    percentile: float = 0.9999
    wide: tuple[str, ...] = ()
    mix: MixPlan | None = None
    bias_correction: bool = False
    equalise: bool = False
    qat: QatPlan | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "windows")
        if self.qat is not None and (self.wide or self.mix):
            raise EdgeError("[quantize.qat] learns 8-bit ranges; leave wide and mix out of the recipe, or qat.")
        at_least(self, 0, "most_saturated")
        one_of(self, "observer", OBSERVERS)
        for kind, observer in self.observers.items():
            if kind not in TENSOR_KINDS:
                raise EdgeError(f"observers names {kind!r}; choose from {', '.join(TENSOR_KINDS)}.")
            if observer not in OBSERVERS:
                raise EdgeError(f"Unknown observer {observer!r} of {kind}; choose from {', '.join(OBSERVERS)}.")
        if not 0.5 < self.percentile <= 1:
            raise EdgeError(f"percentile is {self.percentile:g}; give more than 0.5, up to 1.")


@dataclass(frozen=True)
class EvaluatePlan:
    """On what the models are judged.

    Attributes:
        splits: which splits; empty takes those that the recordings allow (day, else session, else repetition; and wearer
            where there are five or more).
        folds: folds over wearers.
        fold_share: training steps in a fold as a share of those of the shipped model.
        probe_windows: training windows for the linear probe, drawn evenly.
        parity_windows: windows on which runtimes are compared.
    """

    splits: tuple[str, ...] = ()
    folds: int = 5
    fold_share: float = 0.3
    probe_windows: int = 40_000
    parity_windows: int = 1000

    def __post_init__(self) -> None:
        at_least(self, 2, "folds")
        if not 0 < self.fold_share <= 1:
            raise EdgeError(f"fold_share is {self.fold_share:g}; give a share above 0, up to 1.")
        at_least(self, 1, "probe_windows", "parity_windows")
        for split in self.splits:
            if split not in SPLITS:
                raise EdgeError(f"Unknown split {split!r}; choose from {', '.join(SPLITS)}.")


@dataclass(frozen=True)
class PackagePlan:
    """The C package that `deploy` writes beside the models, as `bridge` does: an Android library too where the target is a phone.

    Attributes:
        sample_bits: of the converter's integers. unit_per_count: what one of them is in volts; None for recordings that are counts.
        verify: inputs for which every tensor is compared with the reference's; the package's self-test runs too. 0 compares nothing.
    """

    sample_bits: int = 16
    unit_per_count: float | None = None
    verify: int = 3

    def __post_init__(self) -> None:
        at_least(self, 0, "verify")
        if self.sample_bits not in (16, 32):
            raise EdgeError(f"sample_bits is {self.sample_bits}; give 16 or 32.")
        if self.unit_per_count is not None and not self.unit_per_count > 0:
            raise EdgeError(f"unit_per_count is {self.unit_per_count:g}; give volts, above 0.")


@dataclass(frozen=True)
class GatePlan:
    """Limits whose breach ends `deploy` with status 3. None, `false` in a recipe file, leaves one open."""

    student_balanced_accuracy: float | None = None
    int8_loss: float | None = 0.01
    class_flips: float | None = 0.03
    tflite_bytes: int | None = 128_000
    parity_max_steps: int | None = 3
    parity_within_one: float | None = 0.97
    parity_class_flips: float | None = 0.005


@dataclass(frozen=True)
class SimulatePlan:
    """Recordings that `benchmark` simulates when it is given none; everything else is the simulator's own (docs/simulator.md).

    Attributes:
        wearers, sessions, seconds: how many people, donnings of each, length of a donning.
        channels, rate_hz: shape of the signal.
        free_share: share of a session in free movement, which borrows nothing from held-out gestures.
        seed: of the population.
    """

    wearers: int = 20
    sessions: int = 3
    seconds: float = 120.0
    channels: int = 16
    rate_hz: float = 2000.0
    free_share: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class BenchmarkPlan:
    """What `benchmark` compares, and on which divisions of the data.

    Attributes:
        arms: names of what is compared, from `arms.toml` and the recipe's own [arms].
        reference: the arm that the others are compared with.
        seeds: each trains everything anew.
        unseen_wearers: so many wearers, the last by name, are never trained on.
        later_share: test on this share at the end of every session, for recordings without another session; 0 takes a split.
        days: groups of days that are judged by themselves, instead of all tested sessions of the wearers that are trained on.
        every_pair_of: hold out each pair of these gestures in turn, instead of `hold_out_gestures` at once.
        library_poses: most poses of a gesture in the zero-shot library; only poses of training wearers are in it.
        test_windows: most windows judged in each group of wearers, drawn evenly.
        shares: shares of the training data for the data-efficiency curve of `share_arms`; empty makes none.
    """

    arms: tuple[str, ...] = ("lda", "ridge", "masked", "supervised", "regression", "cpep", "qformer", "embridge")
    reference: str = "embridge"
    seeds: tuple[int, ...] = (0, 1, 2)
    unseen_wearers: int = 0
    later_share: float = 0.0
    days: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    every_pair_of: tuple[str, ...] = ()
    library_poses: int = 100
    test_windows: int = 20_000
    shares: tuple[float, ...] = ()
    share_arms: tuple[str, ...] = ("embridge", "cpep")

    def __post_init__(self) -> None:
        at_least(self, 0, "unseen_wearers", "seeds")
        at_least(self, 1, "library_poses", "test_windows")
        for name in ("arms", "seeds"):
            chosen = getattr(self, name)
            if not chosen or len(set(chosen)) < len(chosen):
                raise EdgeError(f"{name} is {list(chosen)}; give one or more, each once.")
        if any(not 0 < share < 1 for share in self.shares):
            raise EdgeError(f"shares is {list(self.shares)}; give shares between 0 and 1.")
        if not 0 <= self.later_share < 1:
            raise EdgeError(f"later_share is {self.later_share:g}; give a share from 0 to below 1.")
        if len(self.every_pair_of) == 1:
            raise EdgeError("every_pair_of names one gesture; give two or more, or none.")


@dataclass(frozen=True)
class Arm:
    """One way to train, as what it changes in a recipe.

    Attributes:
        title: for tables.
        kind: "network", or what needs none: "lda", "ridge" (from features to poses) or "poses" (the upper bound: the pose
            tower on the true poses).
        base: another arm whose changes come first. changes: dotted keys to values, as in the recipe.
        permuted_poses: deal the library's poses out to other gestures: a control.
        start: what a network begins from: "own", towers pre-trained on the training windows, or "simulated", the arm
            `start_arm` trained whole on the recipe's simulated wearers. An arm that pre-trains nothing starts from scratch.
    """

    title: str
    kind: Literal["network", "lda", "ridge", "poses"] = "network"
    base: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    permuted_poses: bool = False
    start: Literal["own", "simulated"] = "own"
    start_arm: str = "embridge"

    def __post_init__(self) -> None:
        one_of(self, "kind", ("network", "lda", "ridge", "poses"))
        one_of(self, "start", ("own", "simulated"))


@dataclass(frozen=True)
class Recipe:
    """Everything that `deploy` does for a target."""

    name: str
    target: str
    chain: ChainPlan = field(default_factory=ChainPlan)
    windows: WindowPlan = field(default_factory=WindowPlan)
    teacher: TeacherPlan = field(default_factory=TeacherPlan)
    train: TrainPlan = field(default_factory=TrainPlan)
    student: StudentPlan = field(default_factory=StudentPlan)
    distill: DistillPlan = field(default_factory=DistillPlan)
    prune: PrunePlan | None = None
    quantize: QuantizePlan = field(default_factory=QuantizePlan)
    evaluate: EvaluatePlan = field(default_factory=EvaluatePlan)
    package: PackagePlan | None = None
    gates: GatePlan = field(default_factory=GatePlan)
    simulate: SimulatePlan | None = None
    benchmark: BenchmarkPlan = field(default_factory=BenchmarkPlan)
    arms: Mapping[str, Arm] = field(default_factory=dict)

    def __post_init__(self) -> None:
        budget = self.prune is not None and self.prune.budget is not None
        if self.student.family != "conv" and (self.quantize.equalise or budget):
            key = "equalise in [quantize]" if self.quantize.equalise else "budget in [prune]"
            raise EdgeError(f"{key} is for a convolutional student; leave it out, or set family to conv in [student].")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def sha256(self) -> str:
        return sha256_of(self.to_dict())


RECIPES = "embridge_edge.recipes"


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return shipped_tables(RECIPES)


def find_recipe(name: str) -> Recipe:
    """A shipped recipe by name, or a recipe file by path.

    Raises:
        EdgeError: no such recipe, no TOML, an unknown key or a value of the wrong type; the allowed ones are listed.
    """
    from embridge_edge.sweeping import read_plan

    table = recipe_table(name)
    searched = table.pop("sweep", None)  # what `sweep` reads; it is no part of what a recipe does
    recipe: Recipe = build(Recipe, table, f"Recipe {name}")
    if searched is not None:
        read_plan(searched, f"Recipe {name}, [sweep]")
    return recipe


def recipe_table(name: str) -> dict[str, Any]:
    """What a recipe's file holds, unchecked.

    Raises:
        EdgeError: no such recipe, or no TOML.
    """
    return read_table(RECIPES, name, "recipe")


def varied(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with some of its keys changed.

    Args:
        changes: dotted keys, such as "train.steps", to values.

    Raises:
        EdgeError: a key that the recipe does not have, or a value of the wrong type.
    """
    result: Recipe = build(Recipe, changed(recipe.to_dict(), changes), f"Recipe {recipe.name}")
    return result


def arms_of(recipe: Recipe) -> dict[str, Arm]:
    """Every arm that the recipe can name: those that are shipped (`arms.toml`), and its own in their place or beside them."""
    table = read_table("embridge_edge", "arms", "table of arms")
    shipped = {name: build(Arm, arm, f"Arm {name}") for name, arm in table.items()}
    return {**shipped, **recipe.arms}


def arm_recipe(recipe: Recipe, name: str) -> Recipe:
    """The recipe of one arm.

    Raises:
        EdgeError: an unknown arm, or one that is based on itself; names those there are.
    """
    arms = arms_of(recipe)
    line: list[str] = []
    after: str | None = name
    while after is not None:
        if after not in arms:
            raise EdgeError(f"Unknown arm {after!r}; choose from {', '.join(arms)}.")
        if after in line:
            raise EdgeError(
                f"Arm {name!r} is based on itself ({' on '.join([*line, after])}); give one of them no base."
            )
        line.append(after)
        after = arms[after].base
    for one in reversed(line):
        recipe = varied(recipe, arms[one].changes)
    return recipe


def recipe_from_dict(stored: Mapping[str, Any]) -> Recipe:
    """The recipe that `Recipe.to_dict` stored in an artifact."""
    recipe: Recipe = build(Recipe, stored, "The stored recipe")
    return recipe
