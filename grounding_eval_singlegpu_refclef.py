"""Evaluate ALBEF, AMC or SelfEQ on RefCLEF (ReferItGame) by the pointing game.

    python grounding_eval_singlegpu_refclef.py --config configs/Grounding_refclef.yaml \\
        --checkpoint ALBEF_VG --output_dir ALBEF_VG/refclef_results

`--checkpoint` is a file, or a folder of which every *.pth is evaluated.
"""

from groundwork.jobs import evaluate, run_script


def main(argv: list[str] | None = None) -> list[dict[str, object]]:
    """Run with command line arguments `argv`; returns the rows of results.json."""
    return evaluate.main(
        argv,
        description=__doc__ or "",
        config="configs/Grounding_refclef.yaml",
        defaults={"benchmark": "refclef"},
    )


if __name__ == "__main__":
    run_script(main)
