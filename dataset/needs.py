"""What an objective needs of its records, and what is said where they lack it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Need:
    """objective: which learns nothing from a phrase without it. what: it. remedy: where it is
    looked for."""

    objective: str
    what: str
    remedy: str

    def note(self, lacking: int, phrases: int, files: str) -> str:
        """What is to be said of files in which so many of the phrases lack it; "" for none.

        Raises:
            ValueError: all lack it, so that the objective would learn nothing.
        """
        if not lacking:
            return ""
        if lacking == phrases:
            raise ValueError(
                f"{files}: none of {phrases} phrases has a {self.what}, without which"
                f" {self.objective} learns nothing; {self.remedy}, or train another objective"
            )
        return (
            f"{files}: {lacking} of {phrases} phrases have no {self.what}: {self.objective} learns"
            " nothing from them"
        )


BOX = Need("amc", "box", "boxes are read from the entries' key bbox")
PARAPHRASE = Need(
    "selfeq",
    "paraphrase",
    "synonyms are read from the entries' key relation: {group, synonym}, and group must be in the"
    " phrase",
)
