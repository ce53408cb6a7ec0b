import numpy as np

from embridge_edge.synthesis.action_potentials import superpose, templates
from embridge_edge.synthesis.anatomy import VISIBLE, grow_forearm
from embridge_edge.synthesis.motor_units import Pools, discharges, drive_for, grow_pools, rates_hz

RNG = np.random.default_rng(0)
FOREARM = grow_forearm(RNG)
POOLS = grow_pools(FOREARM, RNG)


def constant(level: float, seconds: float = 4.0) -> np.ndarray:
    return np.full((round(seconds * 100), len(VISIBLE)), level, np.float32)


def counts(level: float, seed: int = 1) -> np.ndarray:
    units, _ = discharges(constant(level), POOLS, 100.0, 2000.0, seed)
    return np.bincount(units, minlength=len(POOLS.size))


def of_first_muscle(values: np.ndarray) -> np.ndarray:
    return values[POOLS.muscle == 0]


def test_small_units_are_recruited_first() -> None:
    assert (np.diff(of_first_muscle(POOLS.size)) > 0).all()
    assert (np.diff(of_first_muscle(POOLS.threshold)) > 0).all()
    fired = of_first_muscle(counts(0.15)) > 0
    assert 0 < fired.sum() < len(fired)
    assert fired[: fired.sum()].all()


def test_more_drive_recruits_more_units_that_fire_faster() -> None:
    low, high = of_first_muscle(counts(0.1)), of_first_muscle(counts(0.3))
    assert (high > 0).sum() > (low > 0).sum()
    assert high[0] > low[0]


def test_rates_stay_between_lowest_and_highest() -> None:
    rate = rates_hz(np.array([[0.0], [0.2], [1.0]]), POOLS.threshold, POOLS.peak_hz)
    assert (rate[0] == 0).all()
    active = rate[rate > 0]
    assert active.min() >= 8.0
    assert active.max() <= 35.0


def test_discharges_come_at_the_mean_rate_with_irregular_intervals() -> None:
    units, samples = discharges(constant(0.2, 60.0), POOLS, 100.0, 2000.0, 5)
    intervals = np.diff(samples[units == 0]) / 2000.0
    expected = rates_hz(np.array(0.2), POOLS.threshold[:1], POOLS.peak_hz[:1])[0]
    np.testing.assert_allclose(1.0 / intervals.mean(), expected, rtol=0.03)
    assert 0.14 < intervals.std() / intervals.mean() < 0.22


def test_no_drive_no_discharge() -> None:
    units, _ = discharges(constant(0.0), POOLS, 100.0, 2000.0, 1)
    assert len(units) == 0


def test_same_seed_same_discharges_other_seed_others() -> None:
    np.testing.assert_array_equal(counts(0.3, 7), counts(0.3, 7))
    assert not np.array_equal(counts(0.3, 7), counts(0.3, 8))


def test_drive_rises_with_activation() -> None:
    activation = np.repeat(np.linspace(0.0, 1.0, 21)[:, None], len(VISIBLE), axis=1)
    drive = drive_for(activation, POOLS)
    assert (np.diff(drive, axis=0) >= 0).all()
    assert drive[0].max() < 0.03
    assert drive[-1].min() > 0.9


def rms(level: float, electrode: float = 0.0) -> float:
    units, samples = discharges(constant(level), POOLS, 100.0, 2000.0, 3)
    shapes = templates(POOLS, FOREARM, np.array([electrode]), 2000.0, 12.0)
    return float(superpose(units, samples, shapes, 8000).std())


def test_rms_grows_with_effort() -> None:
    found = [rms(level) for level in (0.05, 0.1, 0.2, 0.4)]
    assert found == sorted(found)
    assert found[-1] > 3 * found[0]


def one_unit(depth_mm: float) -> np.ndarray:
    pools = Pools(
        muscle=np.zeros(1, np.int32),
        threshold=np.array([0.1]),
        peak_hz=np.array([30.0]),
        size=np.array([1.0]),
        angle_rad=np.zeros(1),
        depth_mm=np.array([depth_mm]),
        innervation_mm=np.array([15.0]),
        velocity_m_s=np.array([4.0]),
    )
    return templates(pools, FOREARM, np.zeros(1), 4000.0, 12.0)[0, :, 0]


def middle_hz(shape: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(shape, 1024)) ** 2
    return float((np.fft.rfftfreq(1024, 1 / 4000.0) * power).sum() / power.sum())


def test_a_farther_unit_looks_smaller_and_slower() -> None:
    shapes = [one_unit(depth) for depth in (4.0, 9.0, 18.0, 28.0)]
    sizes = [float(np.ptp(shape)) for shape in shapes]
    speeds = [middle_hz(shape) for shape in shapes[:3]]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 5 * sizes[2]
    assert speeds == sorted(speeds, reverse=True)


def test_fat_weakens_and_widens() -> None:
    thin = templates(POOLS, FOREARM, np.zeros(1), 2000.0, 12.0, fat_mm=2.0)
    thick = templates(POOLS, FOREARM, np.zeros(1), 2000.0, 12.0, fat_mm=8.0)
    assert np.abs(thick).sum() < 0.7 * np.abs(thin).sum()


def test_a_discharge_adds_its_unit_where_it_happened() -> None:
    shapes = templates(POOLS, FOREARM, np.linspace(0, np.pi, 3), 2000.0, 12.0)
    at = np.array([100, 110], np.int32)
    total = superpose(np.array([4, 9], np.int32), at, shapes, 400)
    expected = np.zeros((400, 3), np.float32)
    for unit, sample in ((4, 100), (9, 110)):
        expected[sample : sample + shapes.shape[1]] += shapes[unit]
    np.testing.assert_array_equal(total, expected)
