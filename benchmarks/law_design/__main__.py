"""What a truncation law designed for a lag profile gains, at equal mean length and equal E[L²].

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.law_design [--results FILE]

Nothing is timed: the numbers are variances in closed form, of `artbp.truncation.streaming_variance`
where the profile is a formula, and of `artbp.diagnostics.truncation_variance` on data that the
design has not seen where it is measured on a GRU. Three tables: profiles that are known; laws
designed on one profile and judged on another; the GRU.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks import common
from benchmarks.law_design import network, profiles
from benchmarks.law_design.laws import LAWS


def _table(title: str, rows: list[dict[str, Any]], columns: Mapping[str, str]) -> None:
    print(f"\n{title}\n")
    common.print_table(rows, columns)


def main() -> None:
    """Prints the tables, and writes their rows."""
    arguments = common.make_parser(__doc__).parse_args()
    known = list(profiles.known_profiles())
    pivot: dict[str, dict[str, Any]] = {}
    for row in known:
        pivot.setdefault(row["profile"], {"profile": row["profile"]})[row["law"]] = row[
            "variance_ratio"
        ]
    _table("V of the optimum ÷ V of", list(pivot.values()), {"profile": ""} | {n: n for n in LAWS})
    details = {
        "profile": "",
        "law": "law",
        "second_moment": "E[L²]",
        "variance_ratio": "V of the optimum ÷ V",
        "two_hazards_ratio": "V of two hazards ÷ V",
        "longest_law": "longest of 10⁴ segments",
        "longest_optimal": "of the optimum",
        "first_hazards": "c(1), c(2), c(L0)",
        "last_hazard": "last hazard",
    }
    _table("The optima", known, details)
    delay = list(profiles.same_delay())
    columns = {
        "profile": "",
        "design": "the optimum",
        "longer": "geometric, mean 31",
        "longer_design": "the optimum of mean 31",
    }
    _table("V ÷ V of α = 4, all with E[L²]/L0 = 61", delay, columns)
    memory = list(profiles.more_memory())
    columns = {"kind": "τ = L0/2", "bound": "E[L²] ≤", "second_moment": "E[L²] of the optimum"}
    _table("More memory, the same mean", memory, columns | {"variance_ratio": "V ÷ V of α = 4"})
    others = list(profiles.other_profiles())
    columns = {"kind": "", "designed_on": "designed on", "last_hazard": "last hazard"}
    columns |= {f"{m:g}": f"τ = {m:g}·L0" for m in profiles.MEMORIES}
    _table("V ÷ V of α = 4, judged at", others, columns)
    periods = profiles.other_periods()
    columns = {stretch: f"{stretch} times" for stretch in periods}
    _table("Designed for sign changes every L0; V ÷ V of α = 4 at a period of", [periods], columns)
    measured = network.compare(num_windows=16, num_samples=24)
    columns = {
        "law": "law",
        "delay": "E[L²]/L0",
        "variance_ratio": "variance ÷ that of α = 4",
        "standard_error": "standard error",
    }
    _table("A trained GRU, on other data", measured, columns)
    rows = [{"table": "known"} | row for row in known]
    rows += [{"table": "delay"} | row for row in delay]
    rows += [{"table": "memory"} | row for row in memory]
    rows += [{"table": "other"} | row for row in others]
    rows.append({"table": "periods"} | periods)
    rows += [{"table": "network"} | row for row in measured]
    common.write_results(rows, arguments.results)


if __name__ == "__main__":
    main()
