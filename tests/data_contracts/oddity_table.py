"""Every oddity that the shared material's README lists: which rule of which contract met it, how often and where."""

from __future__ import annotations

from tests.data_contracts.oddities import (
    Evidence,
    Guarded,
    Missing,
    Oddity,
    Read,
    Refused,
    Restated,
    SameBytes,
    Stopped,
    Warned,
)

MEDQUAD, DIALOGUE = "healthcare-medquad", "healthcare-chinese-medical-dialogue"
COVID, FIRST = "healthcare-covid19-daily-reports", "healthcare-covid19-daily-reports-first"
PUBMED, SAMPLES = "healthcare-pubmedqa", "healthcare-mtsamples"
FOMC, PHRASES, RATIOS = "finance-fomc-minutes", "finance-financial-phrases", "finance-sp500-financials"
TWEETS, PAGES, FACTS, TICKERS = (
    "finance-stocknet-tweets", "finance-sec-filings", "finance-sec-facts", "finance-sec-tickers"
)  # fmt: skip
TURBOFAN, MILLING, OVEN, WINDOWS, WELLS, ADVISORIES, LOG = (
    "manufacturing-cmapss", "manufacturing-ai4i2020", "manufacturing-nab", "manufacturing-nab-windows",
    "manufacturing-oil-and-gas", "manufacturing-ics-advisories", "manufacturing-aircraft-maintenance",
)  # fmt: skip
INCIDENTS, CODED, SAFECOM, STRIKES, AIRPORTS, PLANES = (
    "transport-faa-incidents", "transport-faa-incidents-coded", "transport-safecom", "transport-birdstrikes",
    "transport-airports", "transport-planes",
)  # fmt: skip
STATUTES, OPINIONS, CODE, REQUESTS = (
    "law-government-chinese-statutes", "law-government-us-appellate-opinions", "law-government-german-civil-code",
    "law-government-nyc-311-animals",
)  # fmt: skip
WIKI, PLAYS, BOOKS, FACTBOOK = (
    "literature-wikitext2", "literature-tinyshakespeare", "literature-classic-books", "literature-world-factbook"
)  # fmt: skip
TITLES, POEMS, ANCIENT, MENCIUS, LEARNING, CMRC, NEWS = (
    "software-stackoverflow-titles", "chinese-poetry", "chinese-poetry-ancient", "chinese-mencius",
    "chinese-great-learning-and-mean", "chinese-cmrc2018", "chinese-thucnews-titles",
)  # fmt: skip

# Data set -> (its bullet in the README, contract, the oddity in short, what the contract does about it).
# fmt: off
_TABLE: dict[str, list[tuple[int, str, str, Evidence]]] = {
    "healthcare/medquad": [
        (1, MEDQUAD, "792 of 2,713 answers are empty", Stopped("answer.minLength", 792,
            ("12_MPlusHerbsSupplements_QA/0000001.xml:1",))),
        (1, MEDQUAD, "all of them are one collection", Refused("MPlusHerbsSupplements", "quarantineShare")),
        (2, MEDQUAD, "6 documents hold no question and give no row",
            Read("SELECT count(DISTINCT source_file) FROM accepted WHERE source_file LIKE '5_NIDDK%'", 151)),
        (3, MEDQUAD, "79 repeated answers", Warned("answer.duplicateValues", 79)),
    ],
    "healthcare/chinese_medical_dialogue": [
        (1, DIALOGUE, "GB18030 with characters that GB2312 lacks",
            Read("SELECT count(*) FROM accepted WHERE contains(title || ask || answer, '増')", 1)),
        (2, DIALOGUE, "378 exact duplicates", Stopped("primaryKey.duplicate", 378)),
        (3, DIALOGUE, "6 questions are the word 无 (none)", Stopped("ask.minLength", 6)),
        (4, DIALOGUE, "answers end in stray blanks and newlines", Warned("answer.invalidValues", 4)),
        (4, DIALOGUE, "more records than the file's name says", Read("SELECT max(source_line) FROM accepted", 7645)),
    ],
    "healthcare/covid19_daily_reports": [
        (1, COVID, "three headers over the months", Read("SELECT count(country) FROM accepted", 53987)),
        (2, COVID, "byte order mark before the first column in 12 files",
            Read("SELECT count(province) > 0 FROM accepted WHERE day = '2020-01-22'", True)),
        (3, COVID, "CRLF, LF and both in one file",
            Read("SELECT count(*) FROM accepted WHERE recovered IS NULL AND day > '2020-04-01'", 0)),
        (4, COVID, "ten spellings of the time of update", Read("SELECT count(updated) FROM accepted", 53987)),
        (5, COVID, "US rows are counties, then states, then counties",
            Read("SELECT count(*) FROM accepted WHERE contains(province, ', ') AND day < '2020-03-10'", 934)),
        (6, COVID, "a county code twice on 03-22", Warned("fips.duplicateValues", 3, "2020-03-22")),
        (6, COVID, "county code 35013 twice on 03-24", Warned("fips.duplicateValues", 2, "2020-03-24")),
        (7, COVID, "county names that are not ASCII, from 03-28",
            Read("SELECT min(source_line) FROM accepted WHERE county LIKE 'Doña%' AND day = '2020-03-28'", 820)),
        (8, COVID, "other names of countries on 03-10",
            Warned("country.expect_column_values_to_not_be_in_set", 3, "2020-03-10")),
        (8, COVID, "a leading blank, 02-28 line 80", Warned("country.invalidValues", 1, "2020-02-28")),
        (9, COVID, "848 blank counts: of cases", Warned("confirmed.nullValues", 19)),
        (9, COVID, "of deaths", Warned("deaths.nullValues", 441)),
        (9, COVID, "of recovered", Warned("recovered.nullValues", 388)),
        (10, COVID, "Active is not what is left of Confirmed", Warned("sql", 1284, "2020-03-23")),
        (10, COVID, "2,453 on the last day", Warned("sql", 2453, "2020-04-05")),
        (11, COVID, "latitude 0 or blank in 29 rows", Warned("sql#2", 29, "2020-03-23")),
        (11, COVID, "and in 55 of the last day", Warned("sql#2", 55, "2020-04-05")),
    ],
    "healthcare/covid19_daily_reports_as_first_published": [
        (1, FIRST, "17 published days were restated under the same name",
            Restated("healthcare/covid19_daily_reports", 4)),
        (2, FIRST, "03-22 to 03-24 had no counties",
            Read("SELECT count(county) FROM accepted WHERE day >= '2020-03-22'", 0)),
        (2, FIRST, "the state of New York 63 times under one key",
            Read("SELECT count(*) FROM accepted WHERE province = 'New York' AND day = '2020-03-22'", 63)),
        (3, FIRST, "only a hash of the content shows it", Restated("healthcare/covid19_daily_reports", 4)),
    ],
    "healthcare/pubmedqa": [
        (1, PUBMED, "the year is null in 58 records", Warned("year.nullValues", 58)),
        (1, PUBMED, "and text in the others", Read("SELECT max(year) FROM accepted", 2017)),
        (2, PUBMED, "552 of 1,000 answers are yes", Warned("sql", 55.2)),
    ],
    "healthcare/mtsamples_subset": [
        (1, SAMPLES, "blanks around each description",
            Read("SELECT count(*) FROM accepted WHERE description <> trim(description)", 0)),
        (2, SAMPLES, "9 repeated texts", Stopped("primaryKey.duplicate", 9, ("test.csv:162",))),
        (3, SAMPLES, "names like those of patients and doctors",
            Warned("text.expect_column_values_to_not_match_regex", 26)),
        (3, SAMPLES, "dates of treatment", Warned("text.expect_column_values_to_not_match_regex#2", 67)),
        (3, SAMPLES, "the text is classified", Guarded(("text",))),
        (4, SAMPLES, "newlines of the original became commas", Warned("text.invalidValues", 470)),
    ],
    "finance/fomc_minutes": [
        (1, FOMC, "two meetings stand under two dates",
            SameBytes((("20210922.txt", "20211103.txt"), ("20211215.txt", "20220126.txt")))),
        (2, FOMC, "a file is cut short", Stopped("content.minLength", 1, ("20231213.txt:1",))),
        (2, FOMC, "and its meeting refused", Refused("20231213", "quarantineShare")),
        (3, FOMC, "texts start in mid-sentence with a blank", Warned("content.invalidValues", 114)),
    ],
    "finance/financial_phrases": [
        (1, PHRASES, "lines end in CR alone", Read("SELECT max(source_line) FROM accepted", 4846)),
        (2, PHRASES, "names damaged before the file was written",
            Stopped("sentence.pattern", 71, ("all-data.csv:15", "all-data.csv:98"))),
        (3, PHRASES, "6 exact duplicates", Stopped("primaryKey.duplicate", 6,
            ("all-data.csv:1100", "all-data.csv:1417", "all-data.csv:2397"))),
        (4, PHRASES, "two sentences have two sentiments each", Warned("sql", 2)),
    ],
    "finance/sp500_financials": [
        (1, RATIOS, "17 companies without any figure", Stopped("price.required", 17,
            tuple(f"constituents-financials.csv:{line}" for line in (38, 62, 68)))),
        (2, RATIOS, "no dividend yield (104 with the 18 above)", Warned("dividend_yield.nullValues", 86)),
        (2, RATIOS, "no P/E (47)", Warned("price_to_earnings.nullValues", 30)),
        (2, RATIOS, "no EBITDA (43)", Warned("ebitda.nullValues", 26)),
        (2, RATIOS, "no market capitalisation (34)", Warned("market_cap.nullValues", 17)),
        (3, RATIOS, "a market capitalisation of 4.6 million", Stopped("market_cap.minimum", 1,
            ("constituents-financials.csv:367",))),
        (4, RATIOS, "column names with blanks, / and a leading digit",
            Read("SELECT count(high_52_weeks) FROM accepted", 485)),
    ],
    "finance/stocknet_aapl": [
        (1, TWEETS, "user ids", Guarded(("user",))),
        (2, TWEETS, "three days without a file", Missing(("2015-11-27", "2015-12-16", "2015-12-18"))),
        (3, TWEETS, "193 tweets of another UTC day", Warned("sql", 193)),
        (4, TWEETS, "20 duplicates within a day", Warned("sql#2", 20)),
    ],
    "finance/sec_filings": [
        (1, PAGES, "1.9 MB of page, of which 217 kB are text",
            Read("SELECT max(length(content)) < 300000 FROM accepted", True)),
        (2, FACTS, "values that are whole HTML tables", Stopped("value.pattern", 48, ("apple_gaap.csv:93",))),
        (3, TICKERS, "an object with keys 0 to 9609 in place of a list",
            Read("SELECT max(position) FROM accepted", 9609)),
        (3, TICKERS, "1,023 companies with several tickers", Warned("sql", 1023)),
    ],
    "manufacturing/nasa_cmapss": [
        (1, TURBOFAN, "two trailing blanks are no columns", Read("SELECT count(lpt_bleed) FROM accepted", 13096)),
        (2, TURBOFAN, "7 constant columns", Warned("sql#2", 7)),
    ],
    "manufacturing/ai4i2020": [
        (1, MILLING, "byte order mark before UDI", Read("SELECT count(uid) FROM accepted", 10000)),
        (2, MILLING, "9 of 14 columns, and no others", Read("SELECT sum(failure)::INT FROM accepted", 339)),
        (3, MILLING, "brackets and blanks in column names", Read("SELECT count(torque_nm) FROM accepted", 10000)),
    ],
    "manufacturing/nab": [
        (1, OVEN, "an hour stands twice with other values", Stopped("primaryKey.duplicate", 12,
            tuple(f"machine_temperature_system_failure.csv:{line}" for line in range(10151, 10163)))),
        (2, WINDOWS, "the JSON names files that are not here", Warned("file.invalidValues", 112)),
    ],
    "manufacturing/oil_and_gas": [
        (1, WELLS, "longitude and latitude 0 where unknown", Stopped("longitude.maximum", 150)),
        (2, WELLS, "production before the well's completion (4,282 with those above)", Warned("sql", 4274)),
        (3, WELLS, "2 rows stand twice apart from the index", Warned("sql#2", 2)),
        (4, WELLS, "wells named after the land's owner", Guarded(("well",))),
        (4, WELLS, "names of persons, counted", Warned("well.expect_column_values_to_not_match_regex", 38617)),
        (5, WELLS, "a pandas index that leaked, commas in names",
            Read("SELECT count(*) FROM accepted WHERE gas_mcf IS NULL OR water_bbl IS NULL OR oil_bbl IS NULL", 0)),
    ],
    "manufacturing/cisa_ics_advisories": [
        (1, ADVISORIES, "the same disclaimer in every file", Warned("sql", 120)),
        (2, ADVISORIES, "names of reporting researchers", Guarded(("researchers",))),
        (2, ADVISORIES, "nested vulnerabilities", Read("SELECT count(cves) FROM accepted", 120)),
    ],
    "manufacturing/maintnet_aircraft": [
        (1, LOG, "byte order mark before IDENT", Read("SELECT count(entry) FROM accepted", 6169)),
        (2, LOG, "1,047 repeated pairs of problem and action", Warned("duplicateValues", 1047)),
        (3, LOG, "upper case with shop abbreviations",
            Read("SELECT count(*) FROM accepted WHERE problem <> upper(problem)", 0)),
    ],
    "transport/faa_incidents": [
        (1, INCIDENTS, "narratives padded with blanks", Warned("narrative.invalidValues", 1797)),
        (1, CODED, "code names padded to 20 characters",
            Read("SELECT count(*) FROM accepted WHERE kind <> trim(kind)", 0)),
        (2, INCIDENTS, "lower case in one file",
            Read("SELECT count(*) FROM accepted WHERE narrative <> lower(narrative)", 0)),
        (2, CODED, "upper case in the other",
            Read("SELECT count(*) FROM accepted WHERE narrative <> upper(narrative)", 0)),
        (3, INCIDENTS, "6 duplicate narratives", Warned("narrative.duplicateValues", 6)),
        (3, CODED, "columns named c5, c119 ...", Read("SELECT count(cause) FROM accepted", 100)),
    ],
    "transport/safecom_aviation": [
        (1, SAFECOM, "13 broken times, and 6 of 13:00 AM", Stopped("local_time.pattern", 19,
            tuple(f"SAFECOM_UAS_fire_data.csv:{record}" for record in (114, 119, 124)))),
        (2, SAFECOM, "days with and without leading zeros", Read("SELECT count(day) FROM accepted", 160)),
    ],
    "transport/faa_birdstrikes": [
        (1, STRIKES, "24 duplicates", Warned("sql", 24)),
        (2, STRIKES, "no speed in 2,836 rows", Warned("speed.nullValues", 2835)),
        (3, STRIKES, "damage None is a value", Read("SELECT count(*) FROM accepted WHERE damage = 'None'", 8939)),
    ],
    "transport/nycflights13": [
        (1, AIRPORTS, r"null as \N", Read("SELECT count(*) - count(zone) FROM accepted", 92)),
        (1, PLANES, "null as NA: years", Warned("year.nullValues", 70)),
        (1, PLANES, "null as NA: speeds", Warned("speed.nullValues", 3299)),
        (2, AIRPORTS, "UTF-8 encoded twice", Stopped("name.mojibake", 1, ("airports.dat:2541",))),
        (3, AIRPORTS, "backslashes inside quotes", Stopped("name.pattern", 8, ("airports.dat:1331",))),
        (4, AIRPORTS, "IATA codes of two airports each", Warned("sql", 2)),
        (5, PLANES, "built in the fifties and flying in 2013", Stopped("year.minimum", 3, ("planes.csv:1039",))),
    ],
    "law_government/chinese_statutes": [
        (1, STATUTES, "versions of one law side by side", Warned("sql", 12)),
        (2, STATUTES, "an HTML comment ends the head of every file",
            Read("SELECT count(*) FROM accepted WHERE contains(content, 'INFO END')", 0)),
        (2, STATUTES, "comments among the articles of one", Warned("content.invalidValues#2", 1)),
        (2, STATUTES, "ideographic blanks among the articles of three", Warned("content.invalidValues", 3)),
    ],
    "law_government/us_appellate_opinions": [
        (1, OPINIONS, "the text stands up to three times: once is read",
            Read("SELECT count(*) FROM accepted WHERE contains(content, '<p')", 0)),
        (2, OPINIONS, "form feeds in all 70", Warned("content.controlCharacters", 70)),
        (2, OPINIONS, "lines justified with blanks", Warned("sql", 70)),
        (2, OPINIONS, "no author", Warned("author.nullValues", 67)),
        (3, OPINIONS, "names of parties", Guarded(("path", "content"))),
    ],
    "law_government/german_civil_code": [
        (1, CODE, "YAML head before the text",
            Read("SELECT count(*) FROM accepted WHERE contains(content, 'layout: default')", 0)),
        (1, CODE, "umlauts and section signs",
            Read("SELECT count(*) > 1000 FROM accepted WHERE contains(content, '§') AND contains(content, 'ä')", True)),
    ],
    "law_government/nyc_311_animals": [
        (1, REQUESTS, "street addresses and coordinates",
            Guarded(("address", "street", "zip", "latitude", "longitude"))),
        (2, REQUESTS, "no due date in any row", Warned("due.nullValues", 4968)),
        (2, REQUESTS, "no facility in most", Warned("facility.nullValues", 4614)),
        (3, REQUESTS, "a borough Unspecified", Stopped("borough.enum", 1, ("311_Animals_short.csv:261",))),
        (3, REQUESTS, "dates without leading zeros", Read("SELECT count(created) FROM accepted", 4968)),
    ],
    "literature/wikitext2": [
        (1, WIKI, "26,936 unknown words", Warned("sql", 26936)),
        (1, WIKI, "tokenised hyphens in nearly all articles", Warned("sql#2", 119)),
        (2, WIKI, "every line starts with a blank",
            Read("SELECT count(*) FROM accepted WHERE NOT contains(content, chr(10) || ' ')", 0)),
    ],
    "literature/tinyshakespeare": [
        (1, PLAYS, "65 different characters",
            Read("SELECT count(DISTINCT c) FROM (SELECT unnest(string_split(speech, '')) AS c FROM accepted)", 65)),
    ],
    "literature/classic_books": [
        (1, BOOKS, "LF in the head, CRLF in the body: the head is left out, its year read",
            Read("SELECT string_agg(DISTINCT year::VARCHAR, ' ' ORDER BY year::VARCHAR) FROM accepted",
                 "1813 1818 1851 1865")),
        (1, BOOKS, "a file name with an apostrophe and blanks",
            Read("SELECT count(DISTINCT book) FROM accepted WHERE contains(book, chr(39))", 1)),
    ],
    "literature/world_factbook": [
        (1, FACTBOOK, "HTML tags inside values", Warned("background.invalidValues", 22)),
        (2, FACTBOOK, "numbers as prose", Warned("population.invalidValues", 53)),
        (2, FACTBOOK, "sections that not all have", Warned("energy.nullValues", 5)),
    ],
    "software/stackoverflow_titles": [
        (1, TITLES, "titles and labels are joined by position alone",
            Read("SELECT count(*) FROM accepted WHERE label IS NOT NULL", 20000)),
        (2, TITLES, "15 repeated titles", Warned("title.duplicateValues", 15)),
    ],
    "chinese/poetry": [
        (1, POEMS, "a title in some files", Warned("title.nullValues", 2003)),
        (1, POEMS, "a tune in others", Warned("tune.nullValues", 2000)),
        (1, POEMS, "tags in few", Warned("labels.nullValues", 3787)),
        (1, POEMS, "one foreword", Warned("prologue.nullValues", 4002)),
        (1, ANCIENT, "content in place of paragraphs", Read("SELECT count(lines) FROM accepted", 370)),
        (2, MENCIUS, "one file is a list of chapters", Read("SELECT count(*) FROM accepted", 14)),
        (2, LEARNING, "two files are one chapter each", Read("SELECT count(DISTINCT book) FROM accepted", 2)),
        (3, POEMS, "□ for lost characters", Warned("lines.invalidValues", 34)),
        (4, POEMS, "traditional characters in one folder, simplified in the other",
            Read("SELECT count(*) > 0 AND count(*) FILTER (WHERE collection = '全唐诗') * 5 < count(*)"
                 " FROM accepted WHERE contains(lines, '风')", True)),
    ],
    "chinese/cmrc2018": [
        (1, CMRC, "5 answers whose place is wrong", Warned("sql", 5)),
    ],
    "chinese/thucnews_titles": [
        (1, NEWS, "8 titles in both files", Stopped("primaryKey.duplicate", 26,
            ("test.txt:981", "test.txt:5005", "test.txt:5262"))),
        (2, NEWS, "7 and 11 duplicates inside the files",
            Read("SELECT count(*) FROM accepted WHERE source_file = 'dev.txt'", 9993)),
    ],
}
# fmt: on

ODDITIES = tuple(
    Oddity(folder, bullet, contract, words, evidence)
    for folder, rows in _TABLE.items()
    for bullet, contract, words, evidence in rows
)
