"""The oddities that the shared material's README lists, and what each contract of the library does about them.

One table for the tests, which prove every line of it, and for `docs/library.md`, which prints it. `bullet` counts the
README's oddities of a data set from 1; a place is the file and the number of its record.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stopped:
    """A row rule puts `rows` rows in quarantine, those `at` the places among them."""

    rule: str
    rows: int
    at: tuple[str, ...] = ()


@dataclass(frozen=True)
class Warned:
    """A batch rule reports, and the data stays: what it observed in one partition, else in all together."""

    rule: str
    observed: float
    partition: str | None = None


@dataclass(frozen=True)
class Refused:
    """A batch rule refuses a partition."""

    partition: str
    rule: str


@dataclass(frozen=True)
class Read:
    """No fault of the data: it is read without loss, as a query over the accepted rows shows."""

    query: str
    gives: object


@dataclass(frozen=True)
class Guarded:
    """Personal data: the columns are classified, and not trained on unless the terms say how."""

    columns: tuple[str, ...]


@dataclass(frozen=True)
class SameBytes:
    """Pairs of files with the same bytes, found by their hash; no others are equal."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Restated:
    """Every file has other bytes in another folder; `same_size` of them have the same size all the same."""

    folder: str
    same_size: int


@dataclass(frozen=True)
class Missing:
    """Days that the contract promises and that did not come."""

    days: tuple[str, ...]


Evidence = Stopped | Warned | Refused | Read | Guarded | SameBytes | Restated | Missing


@dataclass(frozen=True)
class Oddity:
    """One oddity: `of` a data set (its folder), in the README's words made short, under which contract, with proof."""

    of: str
    bullet: int
    contract: str
    words: str
    evidence: Evidence


@dataclass(frozen=True)
class Outcome:
    """What an ingest of a contract's data set counts; `refused` are the partitions that a batch rule refuses."""

    rows_in: int
    accepted: int
    quarantined: int
    refused: tuple[str, ...] = ()


# Contract (file name in data_contracts/library) -> folder of its data, and what becomes of the rows.
CONTRACTS: dict[str, tuple[str, Outcome]] = {
    "healthcare-medquad": ("healthcare/medquad", Outcome(2713, 1921, 792, ("MPlusHerbsSupplements",))),
    "healthcare-chinese-medical-dialogue": ("healthcare/chinese_medical_dialogue", Outcome(7644, 7260, 384)),
    "healthcare-covid19-daily-reports": ("healthcare/covid19_daily_reports", Outcome(53987, 53987, 0)),
    "healthcare-covid19-daily-reports-first": (
        "healthcare/covid19_daily_reports_as_first_published",
        Outcome(13841, 13841, 0),
    ),
    "healthcare-pubmedqa": ("healthcare/pubmedqa", Outcome(1000, 1000, 0)),
    "healthcare-mtsamples": ("healthcare/mtsamples_subset", Outcome(500, 491, 9)),
    "finance-fomc-minutes": ("finance/fomc_minutes", Outcome(118, 117, 1, ("20231213",))),
    "finance-financial-phrases": ("finance/financial_phrases", Outcome(4846, 4769, 77)),
    "finance-sp500-financials": ("finance/sp500_financials", Outcome(503, 485, 18)),
    "finance-sp500-constituents": ("finance/sp500_financials", Outcome(503, 503, 0)),
    "finance-stocknet-tweets": ("finance/stocknet_aapl", Outcome(2395, 2395, 0)),
    "finance-stocknet-prices": ("finance/stocknet_aapl", Outcome(1258, 1258, 0)),
    "finance-sec-filings": ("finance/sec_filings", Outcome(2, 2, 0)),
    "finance-sec-submissions": ("finance/sec_filings", Outcome(1, 1, 0)),
    "finance-sec-facts": ("finance/sec_filings", Outcome(258, 209, 49)),
    "finance-sec-tickers": ("finance/sec_filings", Outcome(9610, 9610, 0)),
    "manufacturing-cmapss": ("manufacturing/nasa_cmapss", Outcome(13096, 13096, 0)),
    "manufacturing-cmapss-remaining-life": ("manufacturing/nasa_cmapss", Outcome(100, 100, 0)),
    "manufacturing-ai4i2020": ("manufacturing/ai4i2020", Outcome(10000, 10000, 0)),
    "manufacturing-nab": ("manufacturing/nab", Outcome(22695, 22683, 12)),
    "manufacturing-nab-windows": ("manufacturing/nab", Outcome(116, 116, 0)),
    "manufacturing-oil-and-gas": ("manufacturing/oil_and_gas", Outcome(260374, 260224, 150)),
    "manufacturing-ics-advisories": ("manufacturing/cisa_ics_advisories", Outcome(120, 120, 0)),
    "manufacturing-aircraft-maintenance": ("manufacturing/maintnet_aircraft", Outcome(6169, 6169, 0)),
    "transport-faa-incidents": ("transport/faa_incidents", Outcome(2748, 2748, 0)),
    "transport-faa-incidents-coded": ("transport/faa_incidents", Outcome(100, 100, 0)),
    "transport-safecom": ("transport/safecom_aviation", Outcome(180, 160, 20)),
    "transport-birdstrikes": ("transport/faa_birdstrikes", Outcome(10000, 9985, 15)),
    "transport-airports": ("transport/nycflights13", Outcome(8107, 8074, 33)),
    "transport-planes": ("transport/nycflights13", Outcome(3322, 3319, 3)),
    "law-government-chinese-statutes": ("law_government/chinese_statutes", Outcome(142, 142, 0)),
    "law-government-us-appellate-opinions": ("law_government/us_appellate_opinions", Outcome(70, 70, 0)),
    "law-government-german-civil-code": ("law_government/german_civil_code", Outcome(2787, 2787, 0)),
    "law-government-nyc-311-animals": ("law_government/nyc_311_animals", Outcome(4969, 4968, 1)),
    "literature-wikitext2": ("literature/wikitext2", Outcome(120, 120, 0)),
    "literature-tinyshakespeare": ("literature/tinyshakespeare", Outcome(7222, 7222, 0)),
    "literature-classic-books": ("literature/classic_books", Outcome(237, 237, 0)),
    "literature-world-factbook": ("literature/world_factbook", Outcome(55, 55, 0)),
    "software-stackoverflow-titles": ("software/stackoverflow_titles", Outcome(20000, 20000, 0)),
    "chinese-poetry": ("chinese/poetry", Outcome(4003, 4003, 0)),
    "chinese-poetry-ancient": ("chinese/poetry", Outcome(370, 370, 0)),
    "chinese-mencius": ("chinese/poetry", Outcome(14, 14, 0)),
    "chinese-great-learning-and-mean": ("chinese/poetry", Outcome(2, 2, 0)),
    "chinese-cmrc2018": ("chinese/cmrc2018", Outcome(1002, 1000, 2)),
    "chinese-thucnews-titles": ("chinese/thucnews_titles", Outcome(20000, 19974, 26)),
}
