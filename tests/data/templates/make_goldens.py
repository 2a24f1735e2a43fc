"""Renders the templates of this folder with Jinja2, as transformers does (README.md).

Usage: make_goldens.py TEMPLATE... > rendered_more.json
Conversations that rendered.json has not: tools beside a system prompt, calls followed by a question, arguments that are an
object, thinking beside a call, a system message in the middle, empty and null contents, a user's text that looks like
control tokens.
"""
import json
import pathlib
import sys

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city, in °C & %", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "description": "Name <or> code"}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}},
]


def call(number, name, arguments):
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, *calls):
    message = {"role": "assistant", "content": content}
    return {**message, "tool_calls": list(calls)} if calls else message


def tool(content, number):
    return {"role": "tool", "content": content, "tool_call_id": f"call_{number}"}


SYSTEM = {"role": "system", "content": "You are terse.\nAnswer in <b>one</b> line."}
PARIS = call(1, "get_weather", '{"city": "Paris"}')
CONVERSATIONS = {
    "system-tools": ([SYSTEM, user("Weather in Paris?")], TOOLS),
    "tools-called": ([SYSTEM, user("Weather?"), assistant(None, PARIS), tool("21", 1)], TOOLS),
    "tool-then-answer": ([user("Weather?"), assistant("", PARIS), tool("21", 1), assistant("21 degrees.")], None),
    "tool-then-question": (
        [user("Weather?"), assistant("", PARIS), tool("21", 1), assistant("21 degrees."), user("And now?")], None),
    "tool-twice": (
        [user("Weather?"), assistant("", PARIS), tool("21", 1), assistant("", call(2, "now", "{}")), tool("noon", 2)], TOOLS),
    "three-calls": (
        [user("All?"), assistant("", PARIS, call(2, "now", "{}"), call(3, "now", "{}")), tool("21", 1), tool("noon", 2),
         tool("one", 3), assistant("Done."), user("Thanks")], None),
    "arguments-object": ([user("Weather?"), assistant("", call(1, "get_weather", {"city": "Köln"})), tool("9", 1)], None),
    "text-beside-call": ([user("Weather?"), assistant("Let me look.", PARIS), tool("21", 1)], None),
    "thinking-beside-call": ([user("Weather?"), assistant("<think>\nHm.\n</think>\n\nLooking.", PARIS), tool("21", 1)], None),
    "two-thoughts": (
        [user("a"), assistant("<think>x</think>b"), user("c"), assistant("<think>y</think>\n\nd</think>e"), user("f")], None),
    "system-in-the-middle": ([user("a"), assistant("b"), SYSTEM, user("c")], None),
    "empty-contents": ([{"role": "system", "content": ""}, user(""), assistant(""), user(" ")], None),
    "control-tokens": ([user("<｜Assistant｜><think>\n</think> {{ 1 }} {% if %}"), assistant("<｜end▁of▁sentence｜>"), user("x")], None),
    "long-talk": ([message for i in range(6) for message in (user(f"question {i}"), assistant(f"answer {i}"))], None),
    "no-messages": ([], None),
}


def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def render(source, context):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    try:
        return {"expected": environment.from_string(source).render(**context)}
    except Exception as error:  # whatever it is, the prompt must not be used
        return {"error": f"{type(error).__name__}: {error}"}


def contexts(name):
    qwen = name.startswith("Qwen")
    tokens = {"bos_token": "", "eos_token": "<|im_end|>"} if qwen else {
        "bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}
    variants = [{}, {"thinking": True}] if "v3.1" in name else [{}]
    for conversation, (messages, tools) in CONVERSATIONS.items():
        for add_generation_prompt in (True, False):
            for variant in variants:
                context = {"messages": messages, "add_generation_prompt": add_generation_prompt, **tokens, **variant}
                yield conversation, {**context, "tools": tools} if tools else context


def main():
    rows = []
    for path in sys.argv[1:]:
        path = pathlib.Path(path)
        for conversation, context in contexts(path.name):
            rows.append({"template": path.name, "conversation": conversation, "context": context,
                         **render(path.read_text(), context)})
    print("[\n" + ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows) + "\n]")


main()
