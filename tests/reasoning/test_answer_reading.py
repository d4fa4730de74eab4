"""What is read from what models write: a table of outputs with the value and how it was found."""

from __future__ import annotations

import pytest

from dfolora.question import Question
from dfolora.reasoning.answers import Answer, extract, right
from dfolora.reasoning.numbers import numbers_in

NUMBERS = [
    ("She makes 9 * 2 = $18 a day.\n#### 18", 18.0, "marker"),
    ("#### 1,319", 1319.0, "marker"),
    ("The answer is $1,200.50.", 1200.5, "marker"),
    ("The answer is 12.", 12.0, "marker"),
    ("12.", 12.0, "last"),
    ("Therefore, the answer is 5. Wait: 5 + 2. So the answer is 7.", 7.0, "marker"),
    ("The answer is 5 + 4 = 9 apples.", 9.0, "marker"),
    ("**Answer:** 25%", 25.0, "marker"),
    ("The answer is -5 degrees", -5.0, "marker"),
    ("It fell to −7.5 degrees", -7.5, "last"),
    ("5-3 is what we need, that is 2", 2.0, "last"),
    ("a range of 10-12", 12.0, "last"),
    ("The answer is 3/4 of the cake", 0.75, "marker"),
    ("It takes 1 1/2 cups", 1.5, "last"),
    (r"So we get \boxed{\frac{1}{2}}.", 0.5, "marker"),
    (r"\[ x = 4 \] The final answer is \boxed{42} dollars", 42.0, "marker"),
    ("The final answer is: $18$", 18.0, "marker"),
    ("The answer is twenty-one.", 21.0, "marker"),
    ("The answer is\n\n42", 42.0, "marker"),
    ("The answer (arabic numerals) is 7", 7.0, "marker"),
    ("The answer to the question of how many eggs she sells is 18 eggs.", 18.0, "marker"),
    ("He came in on the 3rd day with 20 runners", 20.0, "last"),
    ("The answer is .5", 0.5, "marker"),
    ("The answer is 1/0", None, "none"),
    ("The answer is unclear.", None, "none"),
    ("", None, "none"),
    ("The answer: 1,000,000 people", 1e6, "marker"),
    ("Answer = 6", 6.0, "marker"),
]
PLACES = ("bank", "library", "department store", "mall", "new york")
CHOICES = [
    ("The answer is (B).", "B", "marker"),
    ("Answer: A", "A", "marker"),
    ("The correct answer is D) mall", "D", "marker"),
    ("The answer is C because shops are big", "C", "marker"),
    ("the answer is option E", "E", "marker"),
    ("The answer is **(A) bank**", "A", "marker"),
    ("The answer is a bank, which is safe", "A", "choice text"),
    ("The answer is A library", "B", "choice text"),
    ("The answer is department store.", "C", "choice text"),
    ("The answer is New York", "E", "choice text"),
    ("B", "B", "last"),
    ("B.", "B", "last"),
    ("D) mall", "D", "last"),
    ("(A) is wrong.\n(B) is wrong too.\nSo I take (C).", "C", "last"),
    ("Choices: (A) bank (B) library (C) department store\nI would say option D.", "D", "last"),
    ("A revolving door is a good thing.", None, "none"),
    ("I think of a mall.", "D", "choice text"),
    ("Either a bank or a mall.", None, "none"),
    ("(A) bank (B) library (C) department store (D) mall (E) new york", None, "none"),
    ("F", None, "none"),
]
YES_NO = [
    ("The answer is Yes, it is.", "yes", "marker"),
    ("So the answer is no.", "no", "marker"),
    ("Answer (yes or no): No", "no", "marker"),
    ("Yes. There is no doubt that it is heads up.", "yes", "last"),
    ("There is no doubt: yes!", "yes", "last"),
    ("NO", "no", "last"),
    ("No, the coin is tails up, yes indeed it moved", "no", "last"),
    ("Could it be yes? I say: no", "no", "last"),
    ("The coin is heads up, without any doubt.", None, "none"),
    ("There is no coin.", None, "none"),
]
LETTERS = [
    ('The answer is "nk".', "nk", "marker"),
    ("The answer is N K", "nk", "marker"),
    ("The answer is n-k.", "nk", "marker"),
    ("The last letters joined. The answer is: nk", "nk", "marker"),
    ("We take 'n' and then 'k', so we have 'nk'", "nk", "last"),
    ("nk", "nk", "last"),
    ("The last letter of Lucky is y and that of Mireya is a", None, "none"),
]


@pytest.mark.parametrize(("text", "value", "how"), NUMBERS)
def test_numbers(text: str, value: float | None, how: str) -> None:
    found = extract(text, "number")
    assert (found.value, found.how) == (pytest.approx(value) if value is not None else None, how)


@pytest.mark.parametrize(("text", "value", "how"), CHOICES)
def test_choices(text: str, value: str | None, how: str) -> None:
    found = extract(text, "choice", PLACES)
    assert (found.value, found.how) == (value, how)


@pytest.mark.parametrize(("text", "value", "how"), YES_NO)
def test_yes_and_no(text: str, value: str | None, how: str) -> None:
    found = extract(text, "yes-no")
    assert (found.value, found.how) == (value, how)


@pytest.mark.parametrize(("text", "value", "how"), LETTERS)
def test_letters(text: str, value: str | None, how: str) -> None:
    found = extract(text, "letters")
    assert (found.value, found.how) == (value, how)


def test_a_choice_that_is_a_number_is_not_found_within_a_longer_one() -> None:
    assert extract("The answer is 21 hours", "choice", ("2", "21", "210")).value == "B"
    assert extract("The answer is 2.1 hours", "choice", ("2", "21", "210")).value is None


def test_right_is_within_a_thousandth_for_numbers_and_exact_for_letters() -> None:
    assert right(Answer(0.3334, "last"), Question("q", "1/3"), "number")
    assert not right(Answer(0.335, "last"), Question("q", "1/3"), "number")
    assert not right(Answer(None, "none"), Question("q", "0"), "number")
    assert right(Answer("nk", "last"), Question("q", "nk"), "letters")


def test_numbers_in_digits_and_in_words_are_the_same() -> None:
    assert numbers_in("three friends pay $1,200 for twenty-two boats") == {3.0, 1200.0, 22.0}
