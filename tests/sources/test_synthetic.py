import numpy as np
import pytest
from scipy.cluster.vq import kmeans2, vq

from multimodal_pad import BucketBatcher, Fixed, PaddingError
from multimodal_pad.sources import Synthetic
from multimodal_pad.sources.synthetic import AUDIO_RATE, VISUAL_RATE

QUANTILES = [5, 25, 50, 75, 90, 95, 99, 100]
WORDS = [1, 3, 6, 11, 17, 20, 26, 69]
SECONDS = [0.67, 1.54, 2.46, 3.92, 6.28, 7.88, 11.6, 28.5]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("count", [2000, 13_704])
def test_lengths_follow_meld(count, seed):
    words, audio, visual = Synthetic(count, seed=seed).lengths.values.T
    np.testing.assert_allclose(np.percentile(words, QUANTILES), WORDS, rtol=0.1)
    np.testing.assert_allclose(np.percentile(audio / AUDIO_RATE, QUANTILES), SECONDS, rtol=0.1)
    np.testing.assert_allclose(np.percentile(visual / VISUAL_RATE, QUANTILES), SECONDS, rtol=0.1)
    assert words.mean() == pytest.approx(8.0, rel=0.1)
    assert np.corrcoef(words, audio)[0, 1] == pytest.approx(0.71, abs=0.05)
    assert (words >= 1).all()
    assert (visual >= 1).all()


def test_everything_follows_from_the_seed():
    one, again, other = Synthetic(50, seed=1), Synthetic(50, seed=1), Synthetic(50, seed=2)
    for name, values in one[7].items():
        np.testing.assert_array_equal(values, again[7][name])
    np.testing.assert_array_equal(one.lengths.values, again.lengths.values)
    assert (one.lengths.values != other.lengths.values).any()


def test_samples_have_the_lengths_and_widths_that_the_table_says():
    source = Synthetic(30, missing=0.5)
    for i in range(30):
        sample = source[i]
        assert [len(sample[m]) for m in source.lengths.modalities] == source.lengths.values[i].tolist()
        assert [sample[m].shape[1] for m in source.lengths.modalities] == [300, 74, 35]
        assert all(sample[m].dtype == np.float32 for m in source.lengths.modalities)


def test_no_modality_alone_tells_the_label_and_two_together_do():
    """The clusters of one modality say nothing of the label; those of text and audio together always tell it."""
    source = Synthetic(3000, num_classes=3, seed=4)
    samples = [source[i] for i in range(len(source))]
    hidden = {}
    for name in ("text", "audio"):
        means = np.stack([sample[name].mean(axis=0) for sample in samples])
        lengths = np.array([len(sample[name]) for sample in samples])
        centres, _ = kmeans2(means[lengths >= np.median(lengths)], 3, minit="++", seed=0)  # the less noisy half
        hidden[name], _ = vq(means, centres)
    joint = np.zeros((3, 3, 3))
    np.add.at(joint, (hidden["text"], hidden["audio"], source.targets), 1)
    for one in (joint.sum(axis=1), joint.sum(axis=0)):
        assert one.max(axis=1).sum() / one.sum() == pytest.approx(1 / 3, abs=0.04)
    assert joint.max(axis=2).sum() / joint.sum() > 0.98


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_missing_modalities_on_request(share):
    source = Synthetic(400, missing=share)
    absent = source.lengths.values == 0
    assert absent.any(axis=1).mean() == share
    assert (absent.sum(axis=1) <= 1).all()
    batcher = BucketBatcher(source, Fixed.longest(source.lengths), batch_size=64)
    assert batcher.forecast().missing.sum() == round(400 * share)


@pytest.mark.parametrize("options", [{"num_samples": 1}, {"num_classes": 1}, {"missing": 1.5}, {"missing": -0.1}])
def test_bad_options(options):
    with pytest.raises(PaddingError, match=next(iter(options))):
        Synthetic(**{"num_samples": 10, **options})


@pytest.mark.parametrize("index", [-1, 10])
def test_a_sample_beyond_the_end(index):
    with pytest.raises(IndexError, match="of 10"):
        Synthetic(10)[index]
