"""Evol-Instruct's operators, as requests to a writer, and what it eliminates."""

from harness import words

OPERATORS = {
    "constraints": "add one more constraint or requirement to it",
    "deepening": "where it asks about certain issues, make it ask more deeply and broadly about them",
    "concretizing": "replace its general concepts by more specific ones",
    "reasoning": "where simple thinking would solve it, make it ask for several steps of reasoning",
    "complicated_input": "add an input to it that must be read, such as a table, code, a formula or a text",
    "breadth": "write a new instruction of the same domain and length that is rarer",
}
"""Five ways of deepening and the one of broadening (Xu et al. 2023, arXiv:2304.12244, section 3.2)."""

LEAKED = ("given prompt", "rewritten prompt", "new prompt", "given instruction", "rewritten instruction")
MAX_SORRY_WORDS = 80


def evolving_prompt(way: str, instruction: str) -> str:
    """What a writer is asked, to make an instruction harder in one way, by ten to twenty words."""
    return (
        f"Rewrite an instruction for an AI assistant: {OPERATORS[way]}. People must still understand and be "
        "able to follow it. Add at most 20 words. Reply with the rewritten instruction alone.\n\n"
        f"Instruction: {instruction}"
    )


def eliminated(before: str, after: str, answer: str) -> str:
    """Why an evolution failed, empty where it did not (section 3.3).

    Nothing gained; an answer that is sorry in under 80 words; an answer of stop words and punctuation; or
    words of the request in the instruction.
    """
    if words(before) == words(after) or not words(after):
        return "nothing gained"
    if "sorry" in answer.lower() and len(answer.split()) < MAX_SORRY_WORDS:
        return "hard to answer"
    if not [word for word in words(answer) if len(word) > 3 or word.isdigit()]:
        return "empty answer"
    if any(leak in after.lower() and leak not in before.lower() for leak in LEAKED):
        return "copied from the request"
    return ""
