"""Settings: who wins, what is refused, and in which words."""

from pathlib import Path
from typing import Any

import pytest

from replayforge.config import Config, ConfigError, HttpEndpoint, LoadedConfig, load_config
from replayforge.config.settings import values_by_key
from replayforge.config.sources import environment_of


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the replayforge.toml of the repository by accident."""
    monkeypatch.chdir(tmp_path)


def load(text: str = "", environment: dict[str, str] | None = None, **flags: Any) -> LoadedConfig:
    path = Path("test.toml")
    path.write_text(text)
    return load_config(path, environment or {}, flags)


def problems(text: str = "", environment: dict[str, str] | None = None, **flags: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, environment, **flags)
    return list(caught.value.problems)


def test_defaults() -> None:
    """Without file, variables and flags everything is the default, and the directories are filled in."""
    loaded = load_config(None, {}, {})
    assert loaded.path is None
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.config.server == Config().server
    assert loaded.config.log.dir == str(Path.cwd() / ".replayforge/log")
    assert loaded.config.store.sqlite_path == Path.cwd() / ".replayforge/store.db"


def test_precedence() -> None:
    """A flag beats a variable, a variable beats the file, the file beats the default; each origin is told."""
    text = "[server]\nport = 1\nhost = 'a'\nbase_path = '/file'"
    environment = {"REPLAYFORGE__SERVER__PORT": "2", "REPLAYFORGE__SERVER__HOST": "b"}
    loaded = load(text, environment, port=3, host=None)
    assert (loaded.config.server.port, loaded.origins["server.port"]) == (3, "flag --port")
    assert (loaded.config.server.host, loaded.origins["server.host"]) == (
        "b",
        "environment REPLAYFORGE__SERVER__HOST",
    )
    assert (loaded.config.server.base_path, loaded.origins["server.base_path"]) == ("/file", "test.toml")
    assert loaded.origins["server.api_keys"] == "default"


def test_settings_written_as_variables_are_read_as_they_were() -> None:
    """Every setting, and values of every type, come back from the variables they are written in."""
    odd = {
        "server.api_keys": ("a", "b"),
        "chaos.enabled": True,
        "retry.base_seconds": 0.25,
        "redis.url": "redis://other",
        "handlers.http": (HttpEndpoint("hook.*", "http://127.0.0.1:9/"),),
    }
    values = values_by_key(load("").config) | odd
    loaded = load("", environment_of(values))
    assert values_by_key(loaded.config) == values
    assert set(loaded.origins) == set(values)
    assert {origin.split()[0] for origin in loaded.origins.values()} == {"environment"}


def test_file_of_the_working_directory() -> None:
    """./replayforge.toml is read when it is there and no other file is named."""
    Path("replayforge.toml").write_text("[workers]\ncount = 5")
    loaded = load_config(None, {}, {})
    assert (loaded.config.workers.count, loaded.origins["workers.count"]) == (5, "replayforge.toml")
    assert load("").config.workers.count == 16


def test_variables_of_the_original() -> None:
    """EVENT_BACKEND, REDIS_URL and DATABASE_URL count; the REPLAYFORGE__ form wins over them."""
    environment = {
        "EVENT_BACKEND": "forgelog",
        "REDIS_URL": "redis://localhost:6379/1",
        "DATABASE_URL": "postgresql+asyncpg://me:secret@db/events",
    }
    config = load("", environment).config
    assert config.stream.backend == "embedded"
    assert config.redis.url == "redis://localhost:6379/1"
    assert config.store.url == "postgresql://me:secret@db/events"
    assert config.store.sqlite_path is None
    both = load("", {**environment, "REPLAYFORGE__REDIS__URL": "redis://other"})
    assert both.config.redis.url == "redis://other"
    assert load("", {"REDIS_URL": ""}).origins["redis.url"] == "default"


@pytest.mark.parametrize("text", ['["a", "b"]', "a,b", " a , b ,"])
def test_lists_in_variables(text: str) -> None:
    """A list in a variable is a JSON array or texts between commas."""
    assert load("", {"REPLAYFORGE__SERVER__API_KEYS": text}).config.server.api_keys == ("a", "b")


@pytest.mark.parametrize(
    "keys", ["['']", "['a', ' ']", "['a b']", "['a\u00fc']", "['a', 'a']", '["a\\n"]', "['a\u200b']"]
)
def test_keys_that_let_everybody_in_or_nobody(keys: str) -> None:
    """A key that is empty, cannot stand in a header, or stands there twice is refused at the start."""
    (problem,) = problems(f"[server]\napi_keys = {keys}", {})
    assert "server.api_keys" in problem


def test_text_becomes_the_type_of_the_key() -> None:
    """Variables are texts, read as the number or the truth value the key wants."""
    environment = {"REPLAYFORGE__CHAOS__ENABLED": "true", "REPLAYFORGE__RETRY__BASE_SECONDS": "0.25"}
    config = load("", environment).config
    assert config.chaos.enabled is True
    assert config.retry.base_seconds == 0.25


def test_data_dir_moves_everything(tmp_path: Path) -> None:
    """Log and store lie in the data directory, unless they are given places of their own."""
    config = load("", data_dir=str(tmp_path)).config
    assert config.log.dir == str(tmp_path / "log")
    assert config.store.sqlite_path == tmp_path / "store.db"
    assert load("[log]\ndir = '/elsewhere'", data_dir=str(tmp_path)).config.log.dir == "/elsewhere"


def test_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tilde in data_dir means the home directory."""
    monkeypatch.setenv("HOME", "/home/someone")
    assert load("data_dir = '~/forge'").config.store.url == "sqlite:////home/someone/forge/store.db"


def test_handler_tables() -> None:
    """[[handlers.http]] tables become endpoints."""
    text = "[[handlers.http]]\nmatch = 'email.*'\nurl = 'http://localhost/hook'\n"
    assert load(text).config.handlers.http == (HttpEndpoint("email.*", "http://localhost/hook"),)
    assert "unknown field `mach`" in problems(text.replace("match", "mach"))[0]


def test_no_flag_given() -> None:
    """None and an empty list leave a setting as it is."""
    loaded = load("[handlers]\nmodules = ['a']", handlers=(), workers=None)
    assert loaded.config.handlers.modules == ("a",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[server]\nprot = 1", "test.toml: there is no key server.prot; the nearest is server.port."),
        ("[serv]\nport = 1", "test.toml: there is no key serv.port; the nearest is server.port."),
        ("datadir = 'x'", "test.toml: there is no key datadir; the nearest is data_dir."),
    ],
)
def test_unknown_keys(text: str, sentence: str) -> None:
    """A key that does not exist is refused, with the nearest one that does."""
    assert problems(text) == [sentence]


def test_unknown_variable() -> None:
    """A variable that means no key is refused, with the nearest one that does."""
    assert problems("", {"REPLAYFORGE__SERVER__PROT": "1"}) == [
        "environment REPLAYFORGE__SERVER__PROT: there is no key server.prot; the nearest is REPLAYFORGE__SERVER__PORT."
    ]


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("[server]\nport = 65536", "server.port = 65536 is wrong; accepted: a whole number from 0 to 65535."),
        ("[server]\nport = 'x'", "server.port = 'x' is wrong; accepted: a whole number from 0 to 65535."),
        ("[server]\nport = true", "server.port = True is wrong; accepted: a whole number from 0 to 65535."),
        ("[ingest]\nack = 'never'", "ingest.ack = 'never' is wrong; accepted: one of log, stored."),
        ("[stream]\nbackend = 'kafka'", "accepted: one of auto, redis, embedded."),
        ("[workers]\ncount = 0", "accepted: a whole number from 1 to 10000."),
        ("[workers]\nlease_seconds = nan", "accepted: a number of seconds above 0."),
        ("[workers]\nlease_seconds = inf", "accepted: a number of seconds above 0."),
        ("[chaos]\nfail_rate = 1.1", "accepted: a number from 0 to 1."),
        ("[chaos]\nenabled = 1", "accepted: true or false."),
        ("[chaos]\ncrash_at = ['a b']", "accepted: a list of crash points"),
        ("[store]\nurl = 'mysql://h/d'", "accepted: sqlite:///FILE or postgresql://HOST/DATABASE."),
        ("[redis]\nurl = 'localhost:6379'", "accepted: empty, or redis://, rediss:// or unix:// with an address."),
        ("[handlers]\nmodules = 'a.py'", "accepted: a list of texts."),
        ("[server]\nbase_path = 'x/'", "accepted: empty, or a path"),
        ("[log]\ndir = 5", "accepted: a text."),
        ("server = 5", "there is no key server"),
    ],
)
def test_wrong_values(text: str, accepted: str) -> None:
    """A wrong value names the file, the key, the value and what is accepted."""
    (problem,) = problems(text)
    assert problem.startswith("test.toml: ")
    assert accepted in problem


def test_everything_at_once() -> None:
    """All mistakes are told at once, each with its place, and the daemon's exit code is 78."""
    with pytest.raises(ConfigError) as caught:
        load("[server]\nprot = 1\nport = 'x'", {"REPLAYFORGE__WORKERS__COUNT": "many"}, fail_rate=2)
    places = [problem.split(":")[0] for problem in caught.value.problems]
    assert places == ["test.toml", "test.toml", "environment REPLAYFORGE__WORKERS__COUNT", "flag --fail-rate"]
    assert caught.value.exit_code == 78
    assert str(caught.value).startswith("The configuration has 4 mistakes:\n  test.toml: ")


def test_secrets_stay_secret() -> None:
    """No mistake repeats a key or a password."""
    told = problems("", {"REPLAYFORGE__SERVER__API_KEYS": '["canary"', "DATABASE_URL": "mysql://me:canary@h/x"})
    assert len(told) == 2
    assert "canary" not in " ".join(told)


@pytest.mark.parametrize(
    "text",
    [
        "[workers]\nlease_seconds = 10\nheartbeat_seconds = 10",
        "[retry]\nbase_seconds = 5\nmax_seconds = 4",
        "[server]\nbulk_bytes_max = 2000",
        "[log]\nappend_queue_bytes_max = 2000",
        "[stream]\nbackend = 'redis'",
    ],
)
def test_contradictions(text: str) -> None:
    """Settings that are right alone and wrong together are refused."""
    (problem,) = problems(text)
    assert problem.count(".") > 1


def test_files_that_cannot_be_read() -> None:
    """A missing file, and one that is not TOML, each give one sentence with the path."""
    with pytest.raises(ConfigError, match=r"missing\.toml cannot be read: No such file"):
        load_config(Path("missing.toml"), {}, {})
    with pytest.raises(ConfigError, match=r"test\.toml is not TOML"):
        load("port = = 1")


def test_paths_are_absolute_once_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is named relative to the working directory is meant there, wherever a handler goes later."""
    monkeypatch.chdir(tmp_path)
    flags = {"data_dir": "data", "handlers": ("handlers.py", "app.handlers", "~/more.py")}
    environment = {"REPLAYFORGE__LOG__DIR": "logs", "REPLAYFORGE__STORE__URL": "sqlite:///store.db"}
    config = load_config(None, environment, flags).config
    assert (config.data_dir, config.log.dir) == (f"{tmp_path}/data", f"{tmp_path}/logs")
    assert config.store.sqlite_path == tmp_path / "store.db"
    assert config.handlers.modules == (f"{tmp_path}/handlers.py", "app.handlers", str(Path.home() / "more.py"))
    assert load_config(None, {}, {}).config.store.sqlite_path == tmp_path / ".replayforge/store.db"


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("", "alerts.one: exactly one of url and command says whom to tell"),
        ("url = 'https://a.example'\ncommand = ['page']", "alerts.one: exactly one of url and command"),
        ("command = ['']", "alerts.one: the first item of command is the program"),
        ("command = ['page']\nsecret = 'hidden'", "alerts.one: secret and allow_private belong to a url"),
        ("command = ['page']\nbelow_bytes = 5", "alerts.one: below_bytes says nothing about held; use above_events"),
    ],
)
def test_an_alert_that_cannot_be_meant_is_refused_by_its_name(table: str, problem: str) -> None:
    """With what is right instead, and without its secret."""
    (said,) = problems(f"[[alerts]]\nname = 'one'\nwhen = 'held'\n{table}")
    assert said.startswith(problem)
    assert "hidden" not in said


def test_alerts_have_names_of_their_own_and_conditions_that_exist() -> None:
    alert = "[[alerts]]\nname = 'one'\nwhen = '{}'\ncommand = ['page']\n"
    assert problems(alert.format("held") * 2) == ["alerts: the name 'one' is given twice."]
    (said,) = problems(alert.format("helb"))
    assert "alerts is wrong; accepted: tables of name, when (dead_letters" in said
    (said,) = problems(alert.format("ledger_not_clean") + "above_events = 1\n")
    assert said.endswith("above_events says nothing about ledger_not_clean; it takes no threshold, so leave it out.")
