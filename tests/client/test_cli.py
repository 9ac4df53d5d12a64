"""The command line, against a server made by hand."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow.parquet as pq
import pytest
from fake_server import DIMENSION, FakeServer, descriptor
from lookalike.cli.app import run
from lookalike.cli.photos import find_photos, sharpness
from photos import encode, photo


class Shell:
    """Runs commands against the server; keeps the last one's status and output."""

    def __init__(self, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
        self._place = ["--server", server.target]
        self._capsys = capsys
        self.status, self.out, self.err = 0, "", ""

    def __call__(self, *arguments: object, here: bool = True) -> int:
        self._capsys.readouterr()
        self.status = run([*map(str, arguments), *(self._place if here else [])])
        self.out, self.err = self._capsys.readouterr()
        assert "Traceback" not in self.err
        return self.status

    def json(self, *arguments: object) -> Any:
        assert self(*arguments, "--json") == 0, self.err
        return json.loads(self.out)


@pytest.fixture
def shell(
    server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOOKALIKE_SERVER", raising=False)
    return Shell(server, capsys)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Two copies of one photo, another photo, one that is broken, and things that are no photos."""
    folder = tmp_path / "album"
    (folder / "sub").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    chelsea = encode(photo("chelsea").resize((60, 40)))
    (folder / "cat.jpg").write_bytes(chelsea)
    (folder / "sub" / "copy.JPG").write_bytes(chelsea)
    (folder / "mug.png").write_bytes(encode(photo("coffee").resize((60, 40)), "PNG"))
    (folder / "broken.jpg").write_bytes(b"bad")
    (folder / ".hidden" / "secret.jpg").write_bytes(chelsea)
    (folder / "notes.txt").write_text("no photo")
    return folder


def test_duplicates_are_found_reported_and_counted(shell: Shell, album: Path, tmp_path: Path) -> None:
    assert shell("duplicates", album, "--csv", "groups.csv") == 0
    assert "3 photos: 1 group of copies, 1 photo and" in shell.out
    assert str(album / "broken.jpg") in shell.err
    assert "the file ends too early" in shell.err
    assert "data:image/" in (tmp_path / "lookalike-duplicates.html").read_text()
    assert (tmp_path / "groups.csv").read_text().count("\n") == 3


def test_with_json_the_output_is_json_and_nothing_else(shell: Shell, album: Path) -> None:
    (group,) = shell.json("duplicates", album)["groups"]
    assert {Path(member["id"]).name for member in group["members"]} == {"cat.jpg", "copy.JPG"}
    assert group["members"][0]["width"] == 60


def test_a_second_run_sends_only_what_is_new_or_changed(
    shell: Shell, album: Path, server: FakeServer
) -> None:
    shell("duplicates", album)
    server.chunk_sizes.clear()
    shell("duplicates", album)
    assert server.chunk_sizes == [1]  # the broken one is tried again
    (album / "mug.png").write_bytes((album / "cat.jpg").read_bytes())
    (album / "cat.jpg").unlink()
    (group,) = shell.json("duplicates", album)["groups"]
    assert {Path(member["id"]).name for member in group["members"]} == {"mug.png", "copy.JPG"}


def test_a_photo_that_became_unreadable_is_forgotten(shell: Shell, album: Path) -> None:
    shell("duplicates", album)
    (album / "cat.jpg").write_bytes(b"bad now")
    assert shell.json("duplicates", album)["groups"] == []


def test_other_folders_and_their_order_make_the_collection(
    shell: Shell, album: Path, server: FakeServer
) -> None:
    shell("duplicates", album, album / "sub")
    shell("duplicates", album / "sub", album)
    assert len(server.collections) == 1
    shell("duplicates", album)
    assert len(server.collections) == 2


@pytest.mark.parametrize("output", ["nowhere/report.html", "nowhere/groups.csv"])
def test_a_report_that_cannot_be_written_is_told_before_the_work(
    shell: Shell, album: Path, server: FakeServer, output: str
) -> None:
    flag = "--csv" if output.endswith(".csv") else "-o"
    assert shell("duplicates", album, flag, output) == 2
    assert "no folder 'nowhere'" in shell.err
    assert server.calls == {}


def test_a_report_that_finds_no_room_does_not_keep_the_others_from_being_written(
    shell: Shell, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("lookalike.report.write_html", full)
    assert shell("duplicates", album, "-o", tmp_path / "r.html", "--csv", tmp_path / "r.csv") == 1
    assert f"{tmp_path / 'r.html'} could not be written: No space left on device" in shell.err
    assert shell.out.endswith(f"report: {tmp_path / 'r.csv'}\n")
    assert (tmp_path / "r.csv").is_file()


def test_copies_of_a_reference_are_asked_for_by_an_attribute(
    shell: Shell, album: Path, server: FakeServer
) -> None:
    assert shell("duplicates", album, "--against", album / "sub", "--policy", "max:stars.count") == 0
    assert server.job_request.reference == "reference = true"
    assert server.job_request.policy_attribute == "stars.count"
    (items,) = server.collections.values()
    marked = {Path(i).name: "reference" in json.loads(item.attributes_json) for i, item in items.items()}
    assert marked == {"cat.jpg": False, "copy.JPG": True, "mug.png": False}


def test_a_photo_that_joins_the_reference_is_marked_again(
    shell: Shell, album: Path, server: FakeServer
) -> None:
    more = album.parent / "more"
    more.mkdir()
    (more / "link.jpg").symlink_to(album / "cat.jpg")
    shell("duplicates", album, "--against", more)
    (more / "other.png").symlink_to(album / "mug.png")
    shell("duplicates", album, "--against", more)
    (items,) = server.collections.values()
    assert sum("reference" in json.loads(item.attributes_json) for item in items.values()) == 2


def test_the_sharpest_photo_is_known_once_it_is_asked_for(
    shell: Shell, album: Path, server: FakeServer
) -> None:
    shell("duplicates", album)
    shell("duplicates", album, "--policy", "sharpest")
    (items,) = server.collections.values()
    assert all(json.loads(item.attributes_json)["sharpness"] > 0 for item in items.values())


def test_a_blurred_photo_is_less_sharp_whatever_its_size(tmp_path: Path) -> None:
    picture = photo("chelsea")
    small = picture.resize((picture.width // 4, picture.height // 4))
    for name, image in (
        ("sharp.png", picture),
        ("blown up.png", small.resize(picture.size)),
        ("small.png", small),
    ):
        image.save(tmp_path / name)
    measured = [sharpness(tmp_path / name) or 0 for name in ("sharp.png", "blown up.png", "small.png")]
    assert measured[0] > 2 * max(measured[1:]) > 0
    assert sharpness(tmp_path / "none.png") is None


def test_only_what_is_new_since_the_last_time_is_asked_for(
    shell: Shell, album: Path, server: FakeServer
) -> None:
    shell("duplicates", album)
    shell("duplicates", album, "--new")
    assert server.job_request.since_sequence == 3  # the fake counts its items


def test_the_groups_can_be_read_as_parquet(shell: Shell, album: Path, tmp_path: Path) -> None:
    assert shell("duplicates", album, "--parquet", "groups.parquet") == 0
    rows = pq.read_table(tmp_path / "groups.parquet").to_pylist()
    assert [(row["group"], row["action"], row["identical"]) for row in rows] == [
        (1, "keep", True),
        (1, "move", True),
    ]
    assert rows[0]["modified"].year >= 2020


def test_a_precision_takes_the_place_of_a_threshold(shell: Shell, album: Path, server: FakeServer) -> None:
    assert shell.json("duplicates", album, "--precision", "0.95")["precision_reached"]["low"] == 0.951
    assert server.job_request.precision == 0.95
    assert not server.job_request.HasField("threshold")
    assert shell("duplicates", album, "--precision", "0.95", "--threshold", "0.9") == 2
    server.fail(
        "StartDuplicateJob", (grpc.StatusCode.FAILED_PRECONDITION, "NOT_CALIBRATED", "no calibration")
    )
    assert shell("duplicates", album, "--precision", "0.95") == 1
    assert "photos-" in shell.err


def test_the_precision_of_a_threshold_is_told_where_it_is_known(shell: Shell, album: Path) -> None:
    told = shell.json("duplicates", album, "--threshold", "0.7")
    assert (told["precision"], told["precision_reached"]["estimate"]) == (None, 0.96)
    assert shell.json("duplicates", album, "--threshold", "0.69")["precision_reached"] is None


def test_how_many_photos_a_chain_would_have_joined_is_told(shell: Shell, album: Path) -> None:
    assert shell("duplicates", album) == 0
    assert "2 photos kept out of a group that only a chain of copies joins them to" in shell.err
    assert shell.json("duplicates", album)["counts"]["split"] == 2
    assert [job["split_count"] for job in shell.json("jobs", "list")] == [2]


def test_a_job_that_a_killed_command_left_behind_is_taken_up(
    shell: Shell, album: Path, server: FakeServer
) -> None:
    assert shell("duplicates", album) == 0
    server.leave_job()
    server.calls.clear()
    assert shell("duplicates", album) == 0
    assert server.calls["StartDuplicateJob"] == 0
    assert shell("duplicates", album, "--threshold", "0.7") == 0
    assert server.calls["StartDuplicateJob"] == 1


def test_photos_are_indexed_and_searched(shell: Shell, album: Path) -> None:
    assert shell("index", album, "-c", "shop") == 0
    assert "indexed 3 photos" in shell.out
    assert "shop has 3 items" in shell.out
    assert str(album / "broken.jpg") in shell.err
    assert shell("search", album / "mug.png", "-c", "shop", "-k", "1") == 0
    assert re.search(r"1 +1\.0000 +.*mug\.png", shell.out)
    hits = shell.json("search", "--id", album / "cat.jpg", "-c", "shop")["hits"]
    assert Path(hits[0]["id"]).name == "copy.JPG"
    assert hits[0]["attributes"]["width"] == 60
    np.save("v.npy", descriptor((album / "mug.png").read_bytes()))
    assert shell.json("search", "--vector", "v.npy", "-c", "shop")["hits"][0]["id"].endswith("mug.png")


def test_indexing_goes_on_where_it_was(shell: Shell, album: Path) -> None:
    shell("index", album / "sub", "-c", "shop")
    outcome = shell.json("index", album, "-c", "shop")
    assert (outcome["added"], outcome["unchanged"], outcome["items"]) == (2, 1, 3)
    assert [failure["reason"] for failure in outcome["failed"]] == ["IMAGE_TRUNCATED"]


def test_nothing_found_is_said(shell: Shell, album: Path) -> None:
    shell("index", album, "-c", "shop")
    assert shell("search", album / "cat.jpg", "-c", "shop", "--normalize", "--min-score", "9") == 0
    assert (shell.out, shell.err) == ("", "nothing found\n")


def test_a_filter_on_an_attribute_that_no_item_has_is_told_with_the_nearest(
    shell: Shell, album: Path
) -> None:
    shell("index", album, "-c", "shop")
    nothing = ("search", "--id", album / "mug.png", "-c", "shop", "--min-score", "0.999", "--where")
    assert shell(*nothing, "widht > 1 and bytes > 1 and `odd key` in ('path', 1e3) or not exists(a.b)") == 0
    assert shell.err.splitlines() == [
        "no item has an attribute 'widht'; did you mean width?",
        "no item has an attribute '`odd key`'",
        "no item has an attribute 'a.b'",
        "nothing found",
    ]
    assert shell(*nothing, "width > 1") == 0
    assert shell.err == "nothing found\n"


def test_descriptors_are_written_with_their_paths(shell: Shell, album: Path) -> None:
    assert shell("embed", album, "-o", "v.npy") == 0
    vectors, paths = np.load("v.npy"), json.loads(Path("v.json").read_text())
    assert (vectors.dtype, vectors.shape) == (np.float32, (3, DIMENSION))
    assert [Path(path).name for path in paths] == ["cat.jpg", "mug.png", "copy.JPG"]
    assert shell.json("embed", album, "-o", "v.npz")["count"] == 3
    with np.load("v.npz") as archive:
        np.testing.assert_array_equal(archive["vectors"], vectors)
        assert list(archive["paths"]) == paths
    assert sorted(os.listdir()) == ["album", "v.json", "v.npy", "v.npz"]


def test_recipes_backbones_nodes_and_collections_are_listed(shell: Shell, server: FakeServer) -> None:
    server.collections["shop"] = {}
    for command, word in ((["models"], "near_duplicate"), (["nodes", "tiny"], "body.act")):
        assert shell(*command) == 0
        assert word in shell.out
        shell.json(*command)
    assert "3.0 M" in shell.out or shell.json("nodes", "tiny")[0]["cumulative_flops"] == 3_000_000
    assert shell("collections", "list") == 0
    assert "shop" in shell.out
    assert shell("collections", "delete", "shop", "--yes") == 0
    assert shell.json("collections", "list") == []


def test_a_collection_is_not_deleted_without_a_yes(
    shell: Shell, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.collections["shop"] = {}
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    assert shell("collections", "delete", "shop") == 130
    assert "stopped; nothing was deleted; --yes does not ask" in shell.err
    assert "shop" in server.collections


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["duplicates", "nowhere"], "there is no file or folder 'nowhere'"),
        (["duplicates", "empty"], "no photos in 'empty'"),
        (["duplicates", "texts"], "no photos in 'texts'; looked for files ending in .bmp"),
        (["duplicates"], "Missing argument 'FOLDERS...'"),
        (["duplicates", "album", "--recipe", "near"], "there is no recipe 'near'; there are near_duplicate"),
        (["duplicates", "album", "--policy", "newest"], "'newest' is not one of"),
        (["duplicates", "album", "--threshold", "2"], "not in the range"),
        (["index", "album", "-c", "Shop", "--data", "d"], "--data is the folder of an engine"),
        (["search", "album/cat.jpg", "-c", "shops"], "Did you mean 'shop'?"),
        (["search", "nowhere.jpg", "-c", "shop"], "'nowhere.jpg' is no file"),
        (["search", "album", "-c", "shop"], "'album' is a folder; give one photo"),
        (["search", "-c", "shop"], "give one of IMAGE, --id and --vector"),
        (["search", "--vector", "album/cat.jpg", "-c", "shop"], "is no .npy file"),
        (["search", "--vector", "matrix.npy", "-c", "shop"], "holds (2, 8); a search takes one vector"),
        (["search", "album/cat.jpg", "-c", "shop", "--where", "!"], "column 1"),
        (["search", "album/broken.jpg", "-c", "shop"], "broken.jpg: the file ends too early"),
        (["embed", "album", "-o", "v.txt"], "ends in .npy or .npz"),
        (["search", "album/cat.jpg", "-c", "shop", "--min-score", "7"], "scores go from -1 to 1"),
        (["embed", "album", "-o", "nowhere/v.npy"], "no folder 'nowhere'"),
        (["embed", "album", "-o", "/proc/v.npy"], "'v.npy' cannot be written into '/proc'"),
        (["duplicates", "album", "-o", "/dev/null"], "'/dev/null' is no ordinary file"),
        (["nodes", "tinny"], "Did you mean 'tiny'?"),
        (["duplicate"], "Did you mean 'duplicates'?"),
    ],
)
def test_misuse_is_one_line_that_says_what_to_do(
    shell: Shell, album: Path, tmp_path: Path, server: FakeServer, arguments: list[str], told: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("no photo")
    np.save("matrix.npy", np.zeros((2, 8)))
    server.collections["shop"] = {}
    assert shell(*arguments) == 2
    assert told in shell.err
    assert shell.err.count("\n") == 1
    assert shell.out == ""


def test_a_folder_of_which_nothing_can_be_read_is_a_failure(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"bad")
    for command in (["embed", "-o", "v.npy"], ["index", "-c", "shop"], ["duplicates"]):
        assert shell(*command, tmp_path / "cat.jpg") == 1
        assert "the file ends too early" in shell.err
    assert not Path("v.npy").exists()


def test_where_nothing_can_be_read_an_earlier_report_stays(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"bad")
    report = tmp_path / "lookalike-duplicates.html"
    assert shell("duplicates", tmp_path / "cat.jpg") == 1
    assert "no photo could be read, so no report was written" in shell.err
    assert not report.exists()
    report.write_text("earlier")
    assert shell("duplicates", tmp_path / "cat.jpg") == 1
    assert shell.err.endswith("the earlier one was left as it is\n")
    assert report.read_text() == "earlier"


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["index", "album", "-c", "shop"], "what was indexed is kept in 'shop'; the same command goes on"),
        (["duplicates", "album"], "what was indexed is kept, and the same command goes on"),
        (["embed", "album", "-o", "v.npy"], "v.npy was not written"),
    ],
)
def test_a_server_that_stops_meanwhile_is_told_with_what_is_kept(
    shell: Shell,
    album: Path,
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    kept: str,
) -> None:
    monkeypatch.setattr("lookalike._shared.Patience.pause", lambda *_: None)
    server.fail("chunk", (grpc.StatusCode.UNAVAILABLE, "DRAINING", "the server is stopping"))
    assert shell(*arguments) == 1
    why, told = shell.err.splitlines()
    assert why == "lookalike: the server is stopping"
    assert told.startswith(f"lookalike: {kept}")


PROGRAM = [sys.executable, "-c", "import lookalike.cli; lookalike.cli.main()"]


@pytest.mark.parametrize(
    ("redirected", "status", "told"),
    [
        (">/dev/full", 1, "lookalike: standard output: No space left on device\n"),
        (">&-", 1, "lookalike: standard output is closed: there is nowhere to tell what was found\n"),
        ("| true", 0, ""),
    ],
)
def test_an_output_that_takes_nothing_is_a_failure_unless_its_reader_has_enough(
    redirected: str, status: int, told: str
) -> None:
    shell = ["sh", "-c", f'sleep 0.1; "$@" {redirected}', "sh"]
    ended = subprocess.run(
        [*shell, *PROGRAM, "duplicates", "--help"], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (status, told)


def test_an_address_where_nobody_listens_is_a_failure(shell: Shell) -> None:
    assert shell("models", "--server", "127.0.0.1:1", here=False) == 1
    assert "nobody answers at 127.0.0.1:1; start a server with 'lookalike serve'" in shell.err
    for address in ("localhost", "localhost:65536"):
        assert shell("models", "--server", address, here=False) == 2


def test_the_server_may_come_from_the_environment(
    shell: Shell, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_SERVER", server.target)
    assert shell("models", here=False) == 0
    assert "near_duplicate" in shell.out


def test_ctrl_c_ends_with_one_line_on_what_is_kept(
    shell: Shell, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lookalike._jobs.Jobs.finish", interrupt)
    assert shell("duplicates", album) == 130
    assert shell.err.splitlines()[-1].startswith("lookalike: stopped; what was indexed is kept")
    assert not Path("lookalike-duplicates.html").exists()
    monkeypatch.setattr("lookalike.Client.embed_many", interrupt)
    assert shell("embed", album, "-o", "v.npy") == 130
    assert "v.npy was not written" in shell.err


def test_links_are_followed_once_and_files_counted_once(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "cat.jpg").write_bytes(b"cat")
    (real / "again.jpg").symlink_to(real / "cat.jpg")
    (real / "circle").symlink_to(real)
    (tmp_path / "door").symlink_to(real)
    (real / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (real / "itself.jpg").symlink_to(real / "itself.jpg")
    found = find_photos([tmp_path, real, real / "cat.jpg"])
    assert [p.path for p in found.photos] == [(real / "cat.jpg").resolve()]
    assert {Path(failure.source).name for failure in found.unreadable} == {"dangling.jpg", "itself.jpg"}


def test_a_pipe_named_like_a_photo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "cat.jpg").write_bytes(b"cat")
    found = find_photos([tmp_path])
    assert [failure.message for failure in found.unreadable] == ["this is no ordinary file"]


def test_a_file_name_that_is_no_text_is_no_obstacle(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    odd = os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")
    for path in (odd, str(folder / "cat.jpg")):
        Path(path).write_bytes(encode(photo("chelsea").resize((60, 40))))
    (group,) = shell.json("duplicates", folder)["groups"]
    assert len(group["members"]) == 2
    assert shell("index", folder, "-c", "shop") == 0
    assert shell("embed", folder, "-o", "v.npy") == 0


def test_the_attributes_of_a_photo_that_lies_on_its_side_are_upright(tmp_path: Path) -> None:
    image = photo("chelsea").resize((60, 40))
    exif = image.getexif()
    exif[0x0112] = 6
    (tmp_path / "side.jpg").write_bytes(encode(image, exif=exif))
    (found,) = find_photos([tmp_path]).photos
    assert (found.attributes()["width"], found.attributes()["height"]) == (40, 60)


def test_without_the_cli_extra_the_line_that_brings_it_is_told() -> None:
    program = "import sys; sys.modules['click'] = None; import lookalike.cli; sys.exit(lookalike.cli.main())"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr == "lookalike: this command needs click: pip install 'lookalike[cli]'\n"


def test_a_missing_server_is_told_with_the_line_that_brings_it(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lookalike_server", None)
    for command in (["serve"], ["models"]):
        assert shell(*command, here=False) == 1
        assert "pip install 'lookalike[server]'" in shell.err


def test_the_version_is_told(shell: Shell) -> None:
    assert shell("--version", here=False) == 0
    assert re.fullmatch(r"lookalike \d+\.\d+\.\d+\n", shell.out)


@pytest.mark.parametrize(
    "command", ["", "duplicates", "index", "search", "embed", "serve", "nodes", "models"]
)
def test_help_needs_no_server(shell: Shell, command: str) -> None:
    assert shell(*command.split(), "--help", here=False) == 0
    assert shell.out.startswith("Usage: lookalike")


@pytest.mark.parametrize("command", ["", "collections", "jobs"])
def test_a_group_without_a_command_tells_its_commands(shell: Shell, command: str) -> None:
    assert shell(*command.split(), here=False) == 2
    assert shell.err.startswith(f"Usage: lookalike {command}".rstrip())
    assert "tells more" not in shell.err


def test_searches_can_be_listed_watched_cancelled_and_deleted(
    shell: Shell, album: Path, server: FakeServer
) -> None:
    assert shell("jobs", "list") == 0
    assert "there are no searches" in shell.err
    shell("duplicates", album)
    assert shell("jobs", "list") == 0
    assert shell.out.splitlines()[1].split()[0] == "job-1"
    (job,) = shell.json("jobs", "list")
    assert (job["state"], job["items_total"]) == ("succeeded", 3)
    assert shell("jobs", "watch", "job-1") == 0
    assert shell("jobs", "cancel", "job-1") == shell("jobs", "delete", "job-1") == 0
    assert server.cancelled_jobs == server.deleted_jobs == ["job-1"]


def test_an_admin_socket_that_is_not_there_is_told_with_the_setting_that_makes_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["admin", "status", "--socket", f"unix:{tmp_path}/admin"]) == 1
    assert "setting admin_address" in capsys.readouterr().err
