"""Where is it? A page on which visitors give an image and phrases, and see where they are.

    python demo.py                                        # the quick start's model
    python demo.py --checkpoint a.pth b.pth --port 8000   # side by side
    python demo.py --host 0.0.0.0                         # for everybody who reaches this machine

Needs Gradio: make demo, or pip install -e ".[demo]" in an environment of its own.
"""

from groundwork.jobs import demo, run_script


def main(argv: list[str] | None = None) -> None:
    """Run with command line arguments `argv` until it is interrupted."""
    demo.main(argv, description=__doc__ or "")


if __name__ == "__main__":
    run_script(main)
