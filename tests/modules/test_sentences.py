"""Exact sentences of prose with everything in it that looks like an end and is none."""

import time

import pytest

from modules.sentences import split_sentences


def cut(text: str) -> str:
    """Puts | where a sentence ends, for one line to show a case."""
    return " | ".join(split_sentences(text))


@pytest.mark.parametrize("sentences", [
    # Abbreviations before names, numbers and the rest of a sentence.
    "Dr. Ames came by. | Mrs. Orr and Prof. Lund were out, cf. p. 12 of the log, i.e. the blue one.",
    "It rang, e.g. Monday's bell, etc. | Rome heard it vs. Pisa.",
    "See Fig. 3 and Nos. 4 and 5. | No. 6 is missing. | Is it? | No. | The last is No. 7.",
    "She lives in St. Ives near Mt. Bray. | He is in the next St. | The rest is known.",
    "Bell & Sons Ltd. Works closed. | It became Bell Inc. | They sold it to Orr Corp. Holdings.",
    "In Jan. 1906 she left. | She was back in Feb. | It was cold.",
    # Initials and acronyms.
    "A. E. Douglass and J.-P. Serre met W. H. Orr. | T. S. E. Bell did not.",
    "The U.S. cent is small. | He left the U.S. | The H.M.S. Challenger did not. | It was 5 G.M.T. | So it was.",
    "It grew to the letter J. | To take a curve, lean. | Nor did I. | We take vitamin C. | It helps Miss D., too.",
    "She is a Ph.D. | He is one too, with a Ph.D. Bell gave him.",
    # Times and years.
    "It rang at 9 a.m. and again at 5.20 p.m. | Ruth woke at 3 a.m. | The post came at 8 a.m. Monday or at 9 p.m. GMT.",
    "It is from A.D. 106, not from 600 B.C. | Rome was there before.",
    # Decimals, versions, addresses.
    "It cost 3.50, then 4.25. | Version 2.1.3 is at www.bell.org. | 1,000.5 is more than 90°C. | It is hot.",
    # Quotes.
    '"Is it far?" she asked. | "It is." | He sat down.',
    "“Go on,” he said. | “Count them.” | She counted.",
    '"Two!" cried Mrs. Bell. | "Who?" Ruth asked. | "How much?" I said. | "That much?" | He paid.',
    "'It is late.' | He went. | “‘It’s all right,’ he said.” | “No.”",
    # Brackets.
    "He left (why? Nobody knows. It was dark.) and came back. | (It was open. | Nobody saw.) | He slept. | [Here.]",
    # Ellipses and several marks.
    "I waited ... and waited. . . for what? | Nothing… | Then a bell... | What?! | Well!!! | So it was.",
    # The numbers of a list belong to its items.
    "1. Cut the wood. | 2. Oil it. | (B) Wait. | IV. Rest.",
    "How many? | I know it. | In 1996. | 20 of them came.",
    # Other scripts.
    "早上好。 | 你是谁？ | 我是鸟！”",
    "هل هذا صحيح؟ | نعم.",
    # Tokens with spaces between them, and no capitals at all.
    "mr. bell is here . | it 's good . | is it ? | yes",
    "i paid $ 3.50 . | we left at 9 a.m. | then we ate. | all was well",
    "no end",
])
def test_sentences(sentences):
    separator = "" if "早" in sentences else " "
    assert cut(sentences.replace(" | ", separator)) == sentences


def test_line_ends_are_spaces_and_empty_lines_ends():
    assert split_sentences("\n A Letter\n\nDear Ruth,\nit rained. We\nread.\r\n\r\nYours\n \t\nB. ") == [
        "A Letter", "Dear Ruth,\nit rained.", "We\nread.", "Yours", "B."]


@pytest.mark.parametrize("text", ["", " \n\n ", "\n"])
def test_nothing(text):
    assert split_sentences(text) == []


TEXT = 'He paid 10,000, she said; "and so," he said, "I left" — or went—north-west in 1914–18 - on foot -- at last.'


@pytest.mark.parametrize("split_on, parts", [
    (["commas"], ['He paid 10,000,', 'she said; "and so,"', 'he said,',
                  '"I left" — or went—north-west in 1914–18 - on foot -- at last.']),
    (["semicolons"], ["He paid 10,000, she said;", '"and so," he said, "I left" — or went—north-west in 1914–18 - on '
                      "foot -- at last."]),
    (["dashes"], ['He paid 10,000, she said; "and so," he said, "I left" —', "or went—", "north-west in 1914–18 -",
                  "on foot --", "at last."]),
])
def test_further_marks(split_on, parts):
    assert split_sentences(TEXT, split_on) == parts


def test_all_marks_together():
    assert split_sentences("A bell, a dog; a bird — all. Gone.", ("commas", "semicolons", "dashes")) == [
        "A bell,", "a dog;", "a bird —", "all.", "Gone."]
    with pytest.raises(KeyError, match="colons"):
        split_sentences("a: b", ["colons"])


PROSE = """Mr. Hallam's Kettle

At 6.40 a.m. the kettle in No. 9 began to sing. Mr. Hallam, who had been a ship's cook (the *Orla*, out of Leith; she
sank in 1961. He was ashore.), did not hear it. "Deaf as a post," said Mrs. Orr. "Deaf?" I said. "He hears what he
likes." She went up... and came down again. Nobody had taken the kettle off!

Dr. J. P. Lund called at nine, i.e. too late."""


def test_prose():
    assert split_sentences(PROSE) == [
        "Mr. Hallam's Kettle",
        "At 6.40 a.m. the kettle in No. 9 began to sing.",
        "Mr. Hallam, who had been a ship's cook (the *Orla*, out of Leith; she\nsank in 1961. He was ashore.), did not "
        "hear it.",
        '"Deaf as a post," said Mrs. Orr.', '"Deaf?" I said.', '"He hears what he\nlikes."',
        "She went up... and came down again.", "Nobody had taken the kettle off!",
        "Dr. J. P. Lund called at nine, i.e. too late."]


def test_a_line_of_a_megabyte():
    sentence = "Mr. Bell paid 3.50 (cf. p. 4) for it."
    assert split_sentences(" ".join([sentence] * 30_000)) == [sentence] * 30_000


@pytest.mark.parametrize("unit", [
    ".", ". ", "( a. ", '."', "\n ", "a. b ", ".)", "Mr. ", "x", "A. The b. ", ", ", " - ", "(? A "])
def test_time_is_linear_in_the_text(unit):
    """What a regular expression may be slow on; quadratic time would take minutes."""
    text = unit * ((1 << 18) // len(unit))
    start = time.process_time()
    parts = split_sentences(text, ("commas", "semicolons", "dashes"))
    assert time.process_time() - start < 5
    assert sum(len("".join(part.split())) for part in parts) == len("".join(text.split()))


def test_nothing_is_lost():
    assert "".join("".join(split_sentences(PROSE, ("commas", "dashes"))).split()) == "".join(PROSE.split())
