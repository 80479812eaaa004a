"""What the experiment of launch/experiment.sh trains and measures."""
import typing


class Arm(typing.NamedTuple):
    about: str
    overrides: list[str]   # of configs/retention.yaml
    seeds: int             # how many
    cut: bool = True       # is measured with subsets of its experts, not only as it is


STANDARD = "routing.pool=none"
ARMS = {
    "emo": Arm("EMO: pools of 5 to 64 of 64 experts", [], 3),
    "standard": Arm("standard MoE: the same without pools", [STANDARD], 3),
    "emo-by-domain": Arm("EMO whose batches are of one domain each",
                         ["data.path={data}/train-by-domain", "data.order=sequential"], 1),
    "small": Arm("standard MoE with a quarter of the experts, from scratch",
                 [STANDARD, "model.num_experts=17"], 1, cut=False),
    "dense": Arm("dense, with the parameters that a token uses, from scratch",
                 [STANDARD, "model.dense_layers=all", "model.d_ffn=320"], 1, cut=False),
}


class Plan(typing.NamedTuple):
    """How much is done; the numbers are what makes the two lengths."""
    tokens: int               # that each model sees
    seeds: int                # at most
    calibration: int          # documents of a domain that stand for all
    sizes: list[int]          # smaller numbers of them
    test_documents: int       # of each domain, for each way of cutting
    tuned_domains: list[str]  # domains that models are tuned on
    tuning_steps: int


METHODS = ["layerwise", "router", "easy_ep", "random"]
KEEPS = [0.5, 0.25, 0.125]
TUNED_ARMS = {"emo": [1.0, 0.25, 0.125], "standard": [1.0, 0.25, 0.125], "small": [1.0], "dense": [1.0]}

FULL = Plan(tokens=8_000_000, seeds=3, calibration=0, sizes=[1, 5, 10, 100], test_documents=24,
            tuned_domains=["python", "prose", "mathematics"], tuning_steps=40)
QUICK = Plan(tokens=1_500_000, seeds=1, calibration=30, sizes=[1, 5, 10], test_documents=6,
             tuned_domains=["python"], tuning_steps=30)
