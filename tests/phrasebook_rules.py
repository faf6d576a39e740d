"""What breaks the rules of Portuguese or English in the phrasebook, found by another route than the one that makes it.

Nothing here asks the grammar how a word agrees. Gender comes from how nouns end (with a list of those that end
otherwise), number and person from the function words of the finished sentences, verb forms from their endings. So a
slip in the lexicon, in a pattern or in the drawing shows up as a sentence that breaks a rule.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Iterator

from components.grammar import conjugation_of
from components.grammar_draw import Pair
from components.grammar_entries import Lexicon, Verb

# Nouns that end in neither -o (masculine) nor -a (feminine), or in spite of it are the other.
MASCULINE = """homem rapaz professor turista pescador pai pais avô irmão gato cão cavalo sofá tapete armário hospital
    restaurante hotel museu parque jardim rio camião comboio autocarro jornal poema filme problema lápis telemóvel
    computador guarda-chuva presente bilhete mapa chapéu tomate arroz pão leite chá café português inglês""".split()
FEMININE = """mulher cidade mãe avó irmã estação ponte garagem viagem canção mensagem chave flor árvore maçã sandes
    carne luvas calças""".split()

# What stands before a noun and agrees with it: gender and number, "" where it tells nothing.
ARTICLES = {"o": "ms", "a": "fs", "os": "mp", "as": "fp", "um": "ms", "uma": "fs", "uns": "mp", "umas": "fp"}
POINTERS = {f"{stem}{end}": f"{g}{n}" for stem in ("est", "ess", "aquel")
            for end, g, n in (("e", "m", "s"), ("a", "f", "s"), ("es", "m", "p"), ("as", "f", "p"))}
OWNERS = {"meu": "ms", "minha": "fs", "meus": "mp", "minhas": "fp", "teu": "ms", "tua": "fs", "teus": "mp",
          "tuas": "fp", "nosso": "ms", "nossa": "fs", "nossos": "mp", "nossas": "fp"}
COUNTS = {"dois": "mp", "duas": "fp", "três": "p", "quatro": "p", "cinco": "p", "seis": "p", "dez": "p",
          "muitos": "mp", "muitas": "fp", "poucos": "mp", "poucas": "fp", "vários": "mp", "várias": "fp",
          "alguns": "mp", "algumas": "fp", "todos": "mp", "todas": "fp", "outro": "ms", "outra": "fs",
          "outros": "mp", "outras": "fp", "cada": "s", "quantos": "mp", "quantas": "fp"}
JOINED = {f"{start}{word}": mark for start in ("n", "d") for word, mark in {**ARTICLES, **POINTERS}.items()}
JOINED |= {"ao": "ms", "à": "fs", "aos": "mp", "às": "fp", "pelo": "ms", "pela": "fs", "pelos": "mp", "pelas": "fp",
           "àquele": "ms", "àquela": "fs", "àqueles": "mp", "àquelas": "fp", "noutro": "ms", "noutra": "fs",
           "noutros": "mp", "noutras": "fp"}
MARKERS = ARTICLES | POINTERS | OWNERS | COUNTS | JOINED
FRONT = re.compile(r"(grande|pequen[oa]|nov[oa]|velh[oa])s?$")

# English: singular and plural words before a noun, and plurals that do not end in s.
SINGULAR = {"a", "an", "this", "every", "another"}  # not that, which is also a conjunction
PLURAL = {"these", "those", "some", "many", "several", "few", "two", "three", "four", "five", "six", "ten"}
PLURALS_WITHOUT_S = {"men", "women", "children", "fishermen", "sheep", "mice"}
SINGULARS_WITH_S = {"waitress", "bus", "glass", "dress", "maths"}
NOT_BEFORE_NOUN = re.compile(r"two days ago|this morning|at the moment|a lot of|a week ago|a little")

# Pairs of forms of be that must go together, whoever is meant.
FORMS_OF_BE = [(r"sou|estou", r"am"), (r"és|estás", r"are|aren't"), (r"somos|estamos", r"are|aren't"),
               (r"são|estão", r"are|aren't"), (r"é|está", r"is|isn't")]

SINGULAR_COPULAS = {"sou", "és", "é", "estou", "estás", "está", "era", "estava", "estavas"}
COPULA = re.compile(r"(?<![\w-])"
                    r"(?P<copula>sou|és|é|somos|são|estou|estás|está|estamos|estão|estavas?|estávamos|estavam) "
                    r"((muito|bastante|tão|realmente|mais) )?(?P<adjective>\w+)")
# Statements whose first noun is their subject begin so.
OPENINGS_PT = re.compile(r"(o|a|os|as|um|uma|uns|umas|est\w+|ess\w+|aquel\w+|cada|muit\w+|vári\w+|algu\w+|dois|duas|"
                         r"três|quatro|cinco|seis|dez|todos|todas) "
                         r"(?!(\w+ )?(Ana|Rita|Sofia|Inês|Pedro|João|Tiago|Rui|manhã)\b)")
OPENINGS_EN = re.compile(r"(the|a|an|some|these|this|those|every|many|several|two|three|four|five|six|ten|all|my|your|"
                         r"our|his|her|their) (?!(\w+ )?(neighbour's|mother's|morning|days|week|day before)\b)")

NEVER_PT = {
    "not contracted": r"\b(de|em|a|por) (o|os|as)\b|\b(de|em|por) a\b|\bem uma?\b|"
                      r"\b(de|em) (est|ess|aquel)(e|a|es|as)\b",
    "estar a + no infinitive": r"\best(ou|ás|á|amos|ão|ava|avas|ávamos|avam) a (?!\w*[aeiô]r\b)(?=\w+ (o|a|os|as)\b)",
    "wrong person": r"\beu \w+(s|mos|m)\b(?<!eu mais)|\b(eles|elas) (é|está|não é|não está|vai|tem|quer)\b|"
                    r"\bnós (?!não\b|nunca\b|já\b|ainda\b)\w+(?<!mos)\b|"
                    r"\btu (?!não\b|nunca\b|já\b|ainda\b)\w+(?<!s)(?<!ste)\b",
    "left over": r"[{}~]|None|True|False|  |\(f\)",
}
NEVER_EN = {
    "a before a vowel": r"\ba (?!useful)[aeiou]|\ba honest",
    "an before a consonant": r"\ban (?!honest)[^aeiou]",
    "he …": r"\b(he|she|it) (are|aren't|am|have|haven't|do|don't|want|need)\b(?<!does he have)(?<!does she have)",
    "they …": r"\b(they|we|you) (is|isn't|am|has|hasn't|does|doesn't|was|wants|needs)\b",
    "I …": r"\bI (is|are|isn't|aren't|has|does|were|wants|needs)\b",
    "do + inflected": r"\b(didn't|doesn't|don't|can't|should|shouldn't) (\w+ed|is|are|was|were|has|ate|drank|wrote)\b"
                      r"(?<!need)(?<!feed)",
    "left over": r"[{}~]|None|True|False|  |\(f\)",
}

# Spellings before 1990, and Brazilian ones, which the hand-written pairs should not have.
NOT_EUROPEAN_1990 = re.compile(
    r"\b(acção|óptimo|actual|director|directora|eléctrico|electricista|projecto|vêem|lêem|pára|ônibus|trem|você|"
    r"celular|banheiro|café da manhã|sorvete|gramado|fato e gravata|recepção|baptizado|Janeiro|Fevereiro|Março)\b")


def lexicon(grammar: Lexicon) -> Iterator[str]:
    """Genders by ending, adjectives by ending, verb forms by ending."""
    for key, noun in grammar.nouns.items():
        word = next(form for form in noun.own if form)
        gender = "m" if key in MASCULINE else "f" if key in FEMININE else {"o": "m", "a": "f"}.get(word.rstrip("s")[-1])
        if gender != noun.gender:
            yield f"noun {key}: {noun.gender}, by its ending {gender}"
        if all(noun.own) and not noun.own[1].split()[0].endswith("s"):
            yield f"noun {key}: plural {noun.own[1]}"
        for number, form in zip("sp", noun.en, strict=True):
            if form and form != "sheep" and number != ("p" if form in PLURALS_WITHOUT_S or (
                    form.endswith("s") and form not in SINGULARS_WITH_S) else "s"):
                yield f"noun {key}: {form} as {number}"
    for key, adjective in grammar.adjectives.items():
        ms, fs, mp, fp = adjective.own
        if (fs != (ms[:-1] + "a" if ms.endswith("o") else ms)) or not (mp.endswith("s") and fp.endswith("s")) or (
                ms[-1] in "oe" and (mp, fp) != (ms + "s", fs + "s")):
            yield f"adjective {key}: {adjective.own}"
    for key, verb in grammar.verbs.items():
        yield from verb_forms(grammar, key, verb)


def verb_forms(grammar: Lexicon, key: str, verb: Verb) -> Iterator[str]:
    """Endings that all Portuguese verbs share: tu -s (past -ste), nós -mos, eles -m; English -s and -ing."""
    infinitive = verb.own or key
    endings = conjugation_of(infinitive, grammar)[1]
    for tense in ("present", "preterite", "imperfect"):
        forms = verb.tenses.get(tense) or [infinitive[:-2] + end for end in endings.tenses[tense]]
        past = tense == "preterite"
        wanted = (r"\w+", r"\w+ste" if past else r"\w+s", r"\w+(?<!m)", r"\w+mos", r"\w+(ram|m)" if past else r"\w+m")
        for form, pattern in zip(forms, wanted, strict=True):
            if not re.fullmatch(pattern, form) and form not in ("dão", "vão", "tem"):
                yield f"verb {key}, {tense}: {form}"
        if past and infinitive.endswith("ar") and key != "dar" and not forms[3].endswith("ámos"):
            yield f"verb {key}, {tense}: {forms[3]}"
        if past and not (forms[1][:-3] in forms[4] or forms[1][:-4] in forms[4]):
            yield f"verb {key}, {tense}: {forms}"
        stem = re.sub("ç$", "c", infinitive[:-2])
        if past and infinitive[-3:] in ("çar", "car", "gar") and forms[0] != (
                stem + "ei" if infinitive[-3] == "ç" else stem[:-1] + {"c": "qu", "g": "gu"}[stem[-1]] + "ei"):
            yield f"verb {key}, {tense}: {forms[0]}"
    base, third, _past, _participle, ing = verb.en
    head, *rest = base.split()
    if third.split()[0] not in (head + "s", head + "es", head[:-1] + "ies", "has") or third.split()[1:] != rest:
        yield f"verb {key}: {third}"
    if not ing.split()[0].endswith("ing"):
        yield f"verb {key}: {ing}"


def sentences(grammar: Lexicon, pairs: Iterable[Pair]) -> Iterator[str]:
    """Agreement and forbidden sequences in finished sentences."""
    nouns, adjectives = noun_marks(grammar), adjective_marks(grammar)
    numbers: dict[str, set[str]] = collections.defaultdict(set)
    for noun in grammar.nouns.values():
        for number, form in zip("sp", noun.en, strict=True):
            numbers[form].add(number)
    finite_pt, finite_en = portuguese_finite(grammar), english_finite(grammar)
    for pair in pairs:
        pt, en = pair.own[0].lower() + pair.own[1:], pair.en[0].lower() + pair.en[1:]
        en = re.sub(r"\bi (?=\w)", "I ", en)
        for said in (*portuguese_agreement(pt, nouns, adjectives), *english_agreement(en, numbers),
                     *forbidden(pt, NEVER_PT), *forbidden(en, NEVER_EN), *forms_of_be(pt, en),
                     *predicates(pt, nouns, adjectives), *first_verb(pt, nouns, finite_pt, OPENINGS_PT),
                     *first_verb(en, numbers, finite_en, OPENINGS_EN)):
            yield f"{said}: {pair.own} | {pair.en} ({pair.pattern})"


def noun_marks(grammar: Lexicon) -> dict[str, set[str]]:
    """Form of a noun → gender and number; lápis and sandes are both numbers."""
    marks: dict[str, set[str]] = collections.defaultdict(set)
    for noun in grammar.nouns.values():
        for number, form in zip("sp", noun.own, strict=True):
            if form:
                marks[form.split()[0]].add(noun.gender + number)  # empregada de mesa agrees as empregada
    return marks


def adjective_marks(grammar: Lexicon) -> dict[str, set[str]]:
    marks: dict[str, set[str]] = collections.defaultdict(set)
    for adjective in grammar.adjectives.values():
        for mark, form in zip(("ms", "fs", "mp", "fp"), adjective.own, strict=True):
            marks[form].add(mark)
    return marks


def portuguese_agreement(text: str, nouns: dict[str, set[str]], adjectives: dict[str, set[str]]) -> Iterator[str]:
    """Each noun against the words before it and the adjective after it."""
    words = re.findall(r"[\w-]+", text)
    for at, word in enumerate(words):
        if word not in nouns or (word == "mesa" and at and words[at - 1] == "de"):
            continue
        marks, before = set(nouns[word]), at - 1
        while before >= 0 and stands_before(words, before):
            marker = MARKERS.get(words[before])
            fitting = ({mark for mark in marks if set(marker) <= set(mark)} if marker is not None
                       else marks & adjectives[words[before]])
            if not fitting:
                yield f"{words[before]} … {word}"
                break
            marks, before = fitting, -1 if words[before] in JOINED else before - 1
        after = at + (3 if words[at + 1:at + 2] == ["de"] and words[at + 2:at + 3] == ["mesa"] else 1)
        following = words[after] if after < len(words) else ""
        # limpa and limpas are also he cleans, you clean
        if following in adjectives and following not in ("limpa", "limpas") and not marks & adjectives[following]:
            yield f"{word} {following}"


def stands_before(words: list[str], at: int) -> bool:
    """Whether a word belongs to the noun after it: not a preposition (a três vizinhas), nor a noun's own adjective
    (facas pequenas na cozinha)."""
    following = words[at + 1]
    if words[at] == "a" and following in {*POINTERS, *COUNTS, "um", "uma", "uns", "umas"}:
        return False
    return words[at] in MARKERS or (bool(FRONT.match(words[at])) and following not in MARKERS)


def english_agreement(text: str, numbers: dict[str, set[str]]) -> Iterator[str]:
    """these, many, two … and a, this … against the next noun."""
    words = re.findall(r"[\w'-]+", NOT_BEFORE_NOUN.sub("", text))
    for at, word in enumerate(words):
        wanted = "p" if word in PLURAL else "s" if word in SINGULAR else None
        if wanted is None or words[at + 1:at + 2] in (["is"], ["are"]):  # these are my mother's trousers
            continue
        ahead = range(at + 1, min(at + 6, len(words)))
        forms = (form for end in ahead for form in (" ".join(words[end:end + 2]), words[end].removesuffix("'s")))
        noun = next((form for form in forms if form in numbers), None)
        if noun and wanted not in numbers[noun]:
            yield f"{word} … {noun}"


def forbidden(text: str, rules: dict[str, str]) -> Iterator[str]:
    for name, pattern in rules.items():
        if re.search(pattern, text):
            yield name


def forms_of_be(pt: str, en: str) -> Iterator[str]:
    """é … is, são … are: in sentences with one of them on the Portuguese side, its English form is there too."""
    pt = re.sub(r"\bé que|^é", "", pt)  # porque é que, é fácil
    for portuguese, english in FORMS_OF_BE:
        if re.search(rf"(?<![\w-])({portuguese})(?![\w-])", pt) and not re.search(rf"\b({english})(?![\w'])", en):
            yield f"{portuguese} without {english}"


def predicates(text: str, nouns: dict[str, set[str]], adjectives: dict[str, set[str]]) -> Iterator[str]:
    """as cadeiras são velhas: the adjective after ser or estar has the copula's number and, if just one noun stands
    before it, that noun's gender."""
    for match in COPULA.finditer(text):
        marks = adjectives.get(match["adjective"], set())
        before = [word for word in re.findall(r"[\w-]+", text[:match.start()]) if word in nouns]
        number = "s" if match["copula"] in SINGULAR_COPULAS else "p"
        genders = {mark[0] for mark in nouns[before[0]]} if len(before) == 1 else {"m", "f"}
        if marks and not marks & {gender + number for gender in genders}:
            yield match[0]


def first_verb(text: str, nouns: dict[str, set[str]], finite: dict[str, set[str]], openings: re.Pattern
               ) -> Iterator[str]:
    """In a plain statement that begins with its subject, the first finite verb has the number of the first noun."""
    if not openings.match(text) or re.search(r"[?!]| (e|and|que|who|that|have|me) ", text):
        return
    words = re.findall(r"[\w'-]+", text)
    at = next((i for i, word in enumerate(words) if word in nouns), len(words))
    verb = next((word for word in words[at + 1:] if word in finite), None)
    if verb and not finite[verb] & {mark[-1] for mark in nouns[words[at]]}:
        yield f"{words[at]} … {verb}"


def portuguese_finite(grammar: Lexicon) -> dict[str, set[str]]:
    """Forms of ele, ela and of eles, elas → singular, plural; without words that are nouns or adjectives as well."""
    tables = [tense for tenses in grammar.auxiliaries.own.values() for tense in tenses.values()]
    for key, verb in grammar.verbs.items():
        infinitive = verb.own or key
        ending, conjugation = conjugation_of(infinitive, grammar)
        regular = {tense: [infinitive.removesuffix(ending) + end for end in ends]
                   for tense, ends in (conjugation.tenses.items() if conjugation else ())}
        tables += (regular | verb.tenses).values()
    forms: dict[str, set[str]] = collections.defaultdict(set)
    for table in tables:
        for number, at in (("s", 2), ("p", 4)):
            forms[table[at]].add(number)
    others = noun_marks(grammar).keys() | adjective_marks(grammar).keys()
    return {form: numbers for form, numbers in forms.items() if form not in others}


def english_finite(grammar: Lexicon) -> dict[str, set[str]]:
    """sleeps, is, doesn't → singular; sleep, are, don't → plural; without nouns (a drink, a watch) and past tenses."""
    forms: dict[str, set[str]] = collections.defaultdict(set)
    for verb in grammar.verbs.values():
        for number, form in zip("ps", verb.en[:2], strict=True):
            forms[form.split()[0]].add(number)
        forms.setdefault(verb.en[2].split()[0], set()).update("sp")
    for helper in grammar.helpers.values():
        for number, form in zip("psps", helper.en, strict=True):
            forms[form.split()[0]].add(number)
    said = {"s": "is isn't was has hasn't doesn't used didn't", "p": "are aren't were have haven't don't used didn't"}
    for number, words in said.items():
        for word in words.split():
            forms[word].add(number)
    taken = {word for noun in grammar.nouns.values() for form in noun.en if form for word in form.split()}
    taken |= {adjective.en for adjective in grammar.adjectives.values()}
    return {form: numbers for form, numbers in forms.items() if form not in taken}
