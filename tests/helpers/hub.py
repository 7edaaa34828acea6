"""A folder in the place of the hub."""

from pathlib import Path


class Hub:
    """What of the hub's client an upload uses, with a folder in its place."""

    def __init__(self, folder: Path):
        self.folder = folder

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok and not private
        (self.folder / name).mkdir(parents=True)

    def upload_folder(self, *, repo_id: str, folder_path: Path) -> str:
        for file in Path(folder_path).iterdir():
            (self.folder / repo_id / file.name).write_bytes(file.read_bytes())
        return f"hub/{repo_id}"
