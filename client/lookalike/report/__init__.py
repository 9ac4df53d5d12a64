"""Reports of duplicate groups for people and for programs: one HTML file, CSV, JSON, Parquet.

Reports are made on the client's side, from the files on this machine, whichever server found the groups. They
need the `cli` extra (Pillow and Jinja2), and nothing of this package is imported by `import lookalike`.
"""

try:
    from .html import write_html
except ModuleNotFoundError as error:
    if error.name not in {"PIL", "jinja2"}:
        raise
    raise ModuleNotFoundError(
        f"Reports need {error.name}: pip install 'lookalike[cli]'", name=error.name
    ) from error
from .contents import Report
from .parquet import write_parquet
from .pixels import same_pixels
from .tables import write_csv, write_json

__all__ = ["Report", "same_pixels", "write_csv", "write_html", "write_json", "write_parquet"]
