"""The quick start's retention.json has the keys that scripts read, and numbers that can be.

Usage: quickstart_report_test.py retention.json
"""
import json
import math
import sys

CUTS = {(method, keep, weights) for method in ("router", "random") for keep in (0.25, 0.125)
        for weights in ("kept", "full")}


def check_numbers(numbers: dict, where: str) -> None:
    for key in ("full", "no_routed_experts"):
        assert 0 < numbers[key] < 12, f"{where}: {key} is {numbers[key]}"
    cuts = {(cut["method"], cut["keep"], cut["weights"]): cut for cut in numbers["cuts"]}
    assert set(cuts) == CUTS and len(numbers["cuts"]) == len(CUTS), f"{where}: {numbers['cuts']}"
    for cut in cuts.values():
        assert math.isfinite(cut["loss"]), f"{where}: {cut}"
        assert abs(cut["loss"] - numbers["full"] - cut["increase"]) < 1e-9, f"{where}: {cut}"
        assert (cut["documents"], cut["calibrated_on"]) == ("all", "own"), f"{where}: {cut}"


def main() -> None:
    report = json.load(open(sys.argv[1]))
    assert set(report) == {"emo", "standard"}, set(report)
    for model, numbers in report.items():
        check_numbers(numbers, model)
        assert len(numbers["domains"]) >= 8, f"{model}: {len(numbers['domains'])} domains"
        for label, domain in numbers["domains"].items():
            check_numbers(domain, f"{model}, {label}")
        mean = sum(domain["full"] for domain in numbers["domains"].values()) / len(numbers["domains"])
        assert abs(mean - numbers["full"]) < 1e-9, "the mean over domains is not the mean"
    print("retention.json is as described")


if __name__ == "__main__":
    main()
