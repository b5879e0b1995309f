"""Settings: who may ask, and where the token comes from."""

import pytest

from supertokenvit_runtime.errors import UsageError
from supertokenvit_runtime.serving.settings import TOKEN_VARIABLE, Settings, read_token


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_alone_needs_no_token(host):
    assert Settings(host=host).token is None


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "localhost.example.org", "::ffff:8.8.8.8"]
)
def test_others_need_a_token(host):
    with pytest.raises(UsageError, match="a token is needed"):
        Settings(host=host)
    assert Settings(host=host, token="word").host == host


@pytest.mark.parametrize(
    "options", [{"workers": 0}, {"queue": 0}, {"deadline": 0}, {"max_mb": -1}, {"drain": -1}, {"port": 70000}]
)
def test_numbers_that_cannot_be_are_named(options):
    with pytest.raises(UsageError, match=f"--{next(iter(options)).replace('_', '-')} "):
        Settings(**options)


def test_the_token_is_in_a_file_or_else_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert read_token(None) is None
    monkeypatch.setenv(TOKEN_VARIABLE, "from-environment")
    (tmp_path / "token").write_text(" from-file \n")
    assert (read_token(None), read_token(str(tmp_path / "token"))) == ("from-environment", "from-file")
    for text in ("", "\n", "two words", "grün"):
        (tmp_path / "token").write_text(text)
        with pytest.raises(UsageError, match="must be one word"):
            read_token(str(tmp_path / "token"))


def test_the_token_is_not_shown():
    assert "sesame" not in repr(Settings(token="sesame"))
