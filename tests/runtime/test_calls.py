"""A program that is called again and again hands back memory after its first calls alone."""

from promptmad_jax.runtime import calls


def test_memory_is_handed_back_after_the_first_calls(monkeypatch):
    handed_back = []
    monkeypatch.setattr(calls, "hand_back_unused", handed_back.append)
    program = calls.Calls()
    for number in range(5):
        program.wait()
        program.made(number)
    assert handed_back == [0, 1, 2]
