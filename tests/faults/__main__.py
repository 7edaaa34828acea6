"""The fault matrix: every job, disturbed in every way, and called again.

    python -m tests.faults --out runs/faults --write docs/reliability.md
    python -m tests.faults --jobs RefTR predict --faults "disk full" NaN

Each trial is a call of the real script in a process of its own, on tiny models and drawn data. Then
the same call again must give, bit for bit, what an undisturbed one gives.
"""

from tests.faults.matrix.command import main

if __name__ == "__main__":
    main()
