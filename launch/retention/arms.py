"""How much the experiment of launch/experiment.sh does. Its arms, and what is measured of each, stand in
configs/sweeps/retention.yaml; here is what it does beside that sweep."""
import typing


class Plan(typing.NamedTuple):
    """How much is done; the numbers are what makes the two lengths."""
    tokens: int               # that each model sees
    seeds: int                # the first so many of the sweep's
    calibration: int          # documents of a domain that stand for all; 0: all there are
    sizes: list[int]          # smaller numbers of them
    test_documents: int       # of each domain, for each way of cutting
    tuned_domains: list[str]  # domains that models are tuned on
    tuning_steps: int


# Of configs/sweeps/retention.yaml.
ARMS = ["emo", "standard", "emo-by-domain", "small", "dense"]
CUT_ARMS = ["emo", "standard", "emo-by-domain"]
METHODS = ["layerwise", "router", "easy_ep", "random"]
KEEPS = [0.5, 0.25, 0.125]
# Arms that are tuned on a domain, whole and cut to these shares.
TUNED_ARMS = {"emo": [1.0, 0.25, 0.125], "standard": [1.0, 0.25, 0.125], "small": [1.0], "dense": [1.0]}

FULL = Plan(tokens=8_000_000, seeds=3, calibration=0, sizes=[1, 5, 10, 100], test_documents=24,
            tuned_domains=["python", "prose", "mathematics"], tuning_steps=40)
QUICK = Plan(tokens=1_500_000, seeds=1, calibration=30, sizes=[1, 5, 10], test_documents=6,
             tuned_domains=["python"], tuning_steps=30)
