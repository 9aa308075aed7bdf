"""What the console's modules decide without a page: frames, parameters, names that fit."""

from __future__ import annotations

from typing import Any

from tests.browser.conftest import Opens

FRAMES = """async () => {
  const { createFrames, frame, readDetails } = await import("/console/protocol.js");
  const messages = [{ delta: { text: "a" } }, { text: "ü — 漢" }, {}];
  const bytes = messages.flatMap((message) => [...frame(message)]);
  bytes.push(2, ...frame({ error: { code: "not_found" } }).slice(1));
  const found = [];
  for (const size of [1, 3, 7, bytes.length]) {
    const frames = createFrames();
    const told = [];
    for (let at = 0; at < bytes.length; at += size) {
      told.push(...frames.push(new Uint8Array(bytes.slice(at, at + size))));
    }
    found.push(told);
  }
  const details = [
    { type: "google.rpc.ErrorInfo", value: btoa("\\x0a\\x03WHY\\x12\\x09polyroute") },
    { type: "google.rpc.BadRequest", value: btoa("\\x0a\\x0a\\x0a\\x05top_p\\x12\\x01x") },
    { type: "google.rpc.RetryInfo", value: "CggIAhCAyrXuAQ" },
  ];
  return [found, readDetails(details)];
}"""
PARAMETERS = """async (typed) => (await import("/console/parameter_fields.js")).readParameters(typed)"""
FITS = """async ([query, names]) => {
  const { fit } = await import("/console/fuzzy.js");
  const fitted = names.map((name) => [name, fit(query, name)]).filter(([, found]) => found);
  return fitted.sort(([, a], [, b]) => b.score - a.score).map(([name]) => name);
}"""


async def test_frames_are_read_however_they_are_cut(opens: Opens) -> None:
    page = await opens("/")
    found, details = await page.evaluate(FRAMES)
    whole = [
        {"end": False, "message": {"delta": {"text": "a"}}},
        {"end": False, "message": {"text": "ü — 漢"}},
        {"end": False, "message": {}},
        {"end": True, "message": {"error": {"code": "not_found"}}},
    ]
    assert found == [whole] * 4
    assert details == {"reason": "WHY", "field": "top_p", "retryAfterS": 2.5}


async def test_what_is_typed_becomes_a_request_or_says_why_not(opens: Opens) -> None:
    page = await opens("/")

    async def read(**typed: str) -> Any:
        return await page.evaluate(PARAMETERS, typed)

    assert await read() == {"fields": {}, "problems": {}}
    assert await read(temperature="0", topK=" 40 ", stop="a\\n\n\\\\n") == {
        "fields": {"temperature": 0, "topK": 40, "stop": ["a\n", "\\n"]},
        "problems": {},
    }
    assert (await read(format="choice", formatText="yes\nno"))["fields"] == {
        "responseFormat": {"choice": {"choices": ["yes", "no"]}}
    }
    for typed, problem in {
        ("topP", "0"): "0; must be above 0",
        ("temperature", "hot"): "“hot” is no number",
        ("maxTokens", "1.5"): "1.5; must be a whole number",
        ("seed", "9223372036854775808"): "9223372036854775808; must fit in 64 bits",
        ("stop", "\n".join("abcdefghijklmnopq")): "17 strings; at most 16",
    }.items():
        assert (await read(**{typed[0]: typed[1]}))["problems"] == {typed[0]: problem}
    assert "is no JSON" in (await read(format="jsonSchema", formatText="{"))["problems"]["formatText"]


async def test_names_that_fit_better_come_first(opens: Opens) -> None:
    page = await opens("/")
    names = ["meta-llama/Llama-3.1-8B-Instruct", "mistralai/Mistral-7B-v0.1", "microsoft/phi-2", "demo", "modelo-mini"]

    async def fits(query: str) -> Any:
        return await page.evaluate(FITS, [query, names])

    assert (await fits("llama"))[0] == names[0]
    assert (await fits("m7b")) == [names[1]]
    assert (await fits("8bi")) == [names[0]]
    assert (await fits("demo"))[0] == "demo"
    assert await fits("zz") == []
    assert len(await fits("")) == len(names)
