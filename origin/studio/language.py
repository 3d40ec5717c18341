"""Language tags (BCP 47): checked, and written the short way that players compare."""

from __future__ import annotations

import re

_TAG = re.compile(r"([a-z]{2,3})((?:-[a-z0-9]{1,8}){0,4})", re.IGNORECASE)
_UNSAID = frozenset({"", "und", "mis", "mul", "zxx"})

_CODES = """
aa aar, ab abk, ae ave, af afr, ak aka, am amh, an arg, ar ara, as asm, av ava, ay aym, az aze, ba bak,
be bel, bg bul, bh bih, bi bis, bm bam, bn ben, bo bod tib, br bre, bs bos, ca cat, ce che, ch cha,
co cos, cr cre, cs ces cze, cu chu, cv chv, cy cym wel, da dan, de deu ger, dv div, dz dzo, ee ewe,
el ell gre, en eng, eo epo, es spa, et est, eu eus baq, fa fas per, ff ful, fi fin, fj fij, fo fao,
fr fra fre, fy fry, ga gle, gd gla, gl glg, gn grn, gu guj, gv glv, ha hau, he heb, hi hin, ho hmo,
hr hrv, ht hat, hu hun, hy hye arm, hz her, ia ina, id ind, ie ile, ig ibo, ii iii, ik ipk, io ido,
is isl ice, it ita, iu iku, ja jpn, jv jav, ka kat geo, kg kon, ki kik, kj kua, kk kaz, kl kal, km khm,
kn kan, ko kor, kr kau, ks kas, ku kur, kv kom, kw cor, ky kir, la lat, lb ltz, lg lug, li lim, ln lin,
lo lao, lt lit, lu lub, lv lav, mg mlg, mh mah, mi mri mao, mk mkd mac, ml mal, mn mon, mr mar,
ms msa may, mt mlt, my mya bur, na nau, nb nob, nd nde, ne nep, ng ndo, nl nld dut, nn nno, no nor,
nr nbl, nv nav, ny nya, oc oci, oj oji, om orm, or ori, os oss, pa pan, pi pli, pl pol, ps pus, pt por,
qu que, rm roh, rn run, ro ron rum, ru rus, rw kin, sa san, sc srd, sd snd, se sme, sg sag, sh hbs,
si sin, sk slk slo, sl slv, sm smo, sn sna, so som, sq sqi alb, sr srp, ss ssw, st sot, su sun, sv swe,
sw swa, ta tam, te tel, tg tgk, th tha, ti tir, tk tuk, tl tgl, tn tsn, to ton, tr tur, ts tso, tt tat,
tw twi, ty tah, ug uig, uk ukr, ur urd, uz uzb, ve ven, vi vie, vo vol, wa wln, wo wol, xh xho, yi yid,
yo yor, za zha, zh zho chi, zu zul
"""
"""ISO 639-1 codes, each with its ISO 639-2 codes (terminological, bibliographic), which containers use."""

_SHORT = {
    code: row.split()[0] for row in _CODES.replace("\n", " ").split(",") for code in row.split()
}  # each short code leads to itself


def language_tag(text: str) -> str:
    """Return a tag in its short form: ``ENG`` becomes ``en``, ``pt-br`` becomes ``pt-BR``.

    Raises:
        ValueError: no language of that name is known; three letters that ISO 639-1 does not
            shorten are taken as they are, since ISO 639-3 has thousands.

    """
    match = _TAG.fullmatch(text)
    primary = match[1].lower() if match else ""
    if match is None or (len(primary) == 2 and primary not in _SHORT):  # noqa: PLR2004 - ISO 639-1
        reason = f"is {text!r}, which names no language; use a tag like 'en', 'pt-BR' or 'gsw'"
        raise ValueError(reason)
    subtags = [_cased(subtag) for subtag in match[2].split("-")[1:]]
    return "-".join([_SHORT.get(primary, primary), *subtags])


def stream_language(text: str) -> str:
    """Return the tag of a stream's own note, empty where it says nothing of use."""
    try:
        return "" if text.lower() in _UNSAID else language_tag(text)
    except ValueError:
        return ""


def _cased(subtag: str) -> str:
    """Write a subtag as RFC 5646, section 2.1.1, advises: ``Latn``, ``BR``, all else small."""
    if len(subtag) == 4 and subtag.isalpha():  # noqa: PLR2004 - a script
        return subtag.capitalize()
    return subtag.upper() if len(subtag) == 2 else subtag.lower()  # noqa: PLR2004 - a region
