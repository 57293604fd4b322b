"""What the templates of the common hosts say around a message, and what a text asks."""

from __future__ import annotations

import numpy as np
import pytest

from engram_transformers.models.tokens import HostTokens, last_question, last_sentence, stop_token
from hosts import CHAT, tiny_tokenizer

SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }} <|im_end|>{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n\n{{ m['content'] | trim }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)
GEMMA = (
    "{% for m in messages %}<|im_start|>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n"
    "{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
PLAIN = (
    "{% for m in messages %}{% if m['role'] == 'user' %}User: {{ m['content'] }}\nAssistant:"
    "{% else %} {{ m['content'] }}\n{% endif %}{% endfor %}"
)
TEMPLATES = {
    "chatml": CHAT,
    "chatml-system": SYSTEM + CHAT,
    "llama2": LLAMA2,
    "llama3": LLAMA3,
    "gemma": GEMMA,
    "user-assistant": PLAIN,
}
QUESTIONS = ("Which port?", "who\nwrote it", "谁写了这本书？", "(a) or [b]?", "🙂?")


def tokens_of(template: str | None) -> HostTokens:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return HostTokens(tokenizer, stop=1)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("question", QUESTIONS)
def test_the_message_of_the_last_turn_is_found(template: str, question: str) -> None:
    tokens = tokens_of(template)
    talk = [("user", "Hello there."), ("assistant", "Hi."), ("user", question)]
    for turns in (talk[-1:], talk):
        ids = np.array(tokens.encode(tokens._render(turns)))
        assert tokens.ends_with_marker(ids, len(ids))
        assert tokens.user_message(ids, len(ids)) == question
        assert tokens.last_question(ids, len(ids)) == last_question(question)


def test_no_template_means_plain_text() -> None:
    tokens = tokens_of(None)
    assert tokens.ask_form == "plain" and tokens.marker == () and tokens.header == ()
    assert not tokens.ends_with_marker(np.array([1, 2]), 2)


def test_unknown_ids_have_no_text() -> None:
    tokens = tokens_of(CHAT)
    assert tokens.text_of(-1) == "" and not tokens.opens_a_span(-1)
    assert tokens.decode([-1, *tokens.encode("Paris"), -1]) == "Paris"


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("Which port?", "Which port?"),
        ("Q: Which port?\nA:", "Which port?"),
        ("question:  Which port? Answer:", "Which port?"),
        ("Paris is big.\n\nUser: Which port?\n\nAssistant:\n", "Which port?"),
        ("A:\n", ""),
        ("", ""),
    ],
)
def test_the_last_question_of_a_text_is_without_cues(text: str, asked: str) -> None:
    assert last_question(text) == asked


def test_the_last_sentence() -> None:
    assert last_sentence("Hello. Are you there? Which port?") == "Which port?"


@pytest.mark.parametrize("before", [". ", "\n", "\n\n", ": ", "Hi! ", "<|im_end|>"])
def test_a_span_may_open_after(before: str) -> None:
    tokens = tokens_of(CHAT)
    ids = tokens.encode(before.rstrip(" "))
    assert tokens.opens_a_span(ids[-1])


@pytest.mark.parametrize("before", ["「", "。", "？", "，", "：", " ."])
def test_a_span_may_open_after_a_token_that_ends_like(
    before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tokens_of(CHAT)
    monkeypatch.setattr(tokens, "text_of", lambda token: before)
    assert tokens.opens_a_span(9)


@pytest.mark.parametrize("before", ["in", " the", "a", "7", "的"])
def test_no_span_opens_inside_a_sentence(before: str) -> None:
    tokens = tokens_of(CHAT)
    assert not tokens.opens_a_span(tokens.encode(before)[-1])


@pytest.mark.parametrize(
    ("prompt", "answer", "text"),
    [
        ("Which port?", "8443", " 8443"),
        ("Which port? ", "8443", "8443"),
        ("A:\n", "8443", "8443"),
        ("谁写了？", "鲁迅", "鲁迅"),
        ("Who wrote it?", "鲁迅", "鲁迅"),
        ("Go on", "\nnew line", "\nnew line"),
    ],
)
def test_an_answer_continues_a_plain_prompt(prompt: str, answer: str, text: str) -> None:
    tokens = tokens_of(None)
    ids = tokens.answer_ids(prompt, answer, form="plain")
    assert ids[-1] == 1 and tokens.decode(ids[:-1]) == text


def test_the_stop_token_is_the_one_that_ends_a_turn() -> None:
    class Several:
        eos_token_id = (0, 1)

    assert stop_token(tiny_tokenizer(), Several()) == 1
    assert stop_token(tiny_tokenizer(), None) == 1
