"""Text that was read in a wrong encoding, found by the characters that typically come of it."""

from __future__ import annotations

import re

# What bytes 0x80-0x9F are in Windows-1252, which most programs mean by Latin-1.
_CP1252 = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_CONTINUED = f"[\\x80-\\xbf{_CP1252}]"
# Characters that hardly occur in Chinese, simplified or traditional, but that its common characters in UTF-8 become
# when read as GBK (，→ 锛, 。→ 銆, 的 → 鐨, 病 → 鐥, 和 → 鍜, 疗 → 鐤).
_UTF8_AS_GBK = "锛銆鐨鐥鐤鏌鍙鍚鑳鐜鍜鏄鍖鐢嚭棁梾紝紵瓑枟殑偅缁鏂鍏"
_FOUND = re.compile(
    "[\ufffd\ue000-\uf8ff]"
    "|锟斤拷|锟斤|斤拷"
    "|烫{3,}|屯{3,}"
    # UTF-8 read as Latin-1: é → Ã©, 的 → çš„.
    f"|[Â-ß]{_CONTINUED}|[à-ï]{_CONTINUED}{{2}}"
    # GBK read as Latin-1: 中文 → ÖÐÎÄ. One sign again and again, ×××× or ····, stands for something left out.
    "|(?!([\xa1-\xff])\\1{3})[\xa1-\xff]{4,}"
    f"|[{_UTF8_AS_GBK}]"
)
# Each of the above holds one of these characters. To look for those first takes a tenth of the time, and 997 of 1000
# Chinese texts hold none.
_SUSPECT = re.compile(f"[\xa1-\xff\ufffd\ue000-\uf8ff锟拷烫屯{_UTF8_AS_GBK}]")


def mojibake_share(text: str) -> float:
    """Share of the characters of `text`, white space aside, that are typical of mis-decoded text; 0 for no text.

    Counted are U+FFFD, private use, 锟斤拷, runs of 烫 or 屯, UTF-8 read as Latin-1 or GBK, and GBK read as Latin-1.
    """
    if not _SUSPECT.search(text):
        return 0.0
    found = sum(match.end() - match.start() for match in _FOUND.finditer(text))
    return found / (len(text) - sum(map(str.isspace, text))) if found else 0.0
