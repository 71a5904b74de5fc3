"""What the fuzzer puts into its inputs: words that mean something to somebody, as Python would escape them."""

from __future__ import annotations

from typing import Tuple

ODD_OCTETS = b'\x00\t\n\r\x0b\x0c\x1f !"#%,/0:;=@A[\\]_{}\x7f\x80\x85\xa0\xad\xc3\xe2\xed\xef\xf0\xff'


def words(text: str) -> Tuple[bytes, ...]:
    return tuple(one.encode("latin-1").decode("unicode_escape").encode("latin-1") for one in text.split())


NUMBERS = words(r"""
    0 00 -1 +5 0x5 5_0 1e3 4294967296 9223372036854775807 9999999999999999999 000000000000000000000000000005
    \xd9\xa3 \xef\xbc\x95 1.5 ffffffff 1e400 NaN
""")
NUMBERS += (b"9" * 5000,)
LETTERS = words(r"""
    \xc3\xa4 \xf0\x9f\x98\x80 \xed\xa0\x80 \xc0\xaf \xef\xbb\xbf \xe2\x80\xa8 \xc2\x85 \xf4\x90\x80\x80 \xe7\x81
    \\ud83d \\ud83d\\ude00 \\udc00 \\u0000
""")
HTTP = words(r"""
    \r\n \r\n\r\n \n \r \n\n \r\n\x20 \r\n\t \x20 \t : 0\r\n\r\n 0\r\n * // /../ # ? \\ ;a=b %2e%2e %0d%0a %00
    \r\nTransfer-Encoding:\x20chunked \r\nTransfer-Encoding:\x0bchunked \r\nTransfer_Encoding:\x20chunked
    Transfer-Encoding Content-Length chunked identity gzip,\x20chunked chunked,\x20chunked
    \r\nContent-Length:\x200 \r\nContent-Length:\x205 \r\nContent-Length:\x206,\x206 \r\nContent-Length\x20:\x205
    Host:\x20x\r\n \r\nHost:\x20127.0.0.1 \r\nConnection:\x20close \r\nConnection:\x20keep-alive,\x20content-length
    \r\nConnection:\x20host,\x20content-type \r\nExpect:\x20100-continue \r\nContent-Encoding:\x20gzip
    \r\nUpgrade:\x20h2c \r\nTrailer:\x20x \r\nX-Y:\x20\xff HTTP/1.0 HTTP/1.1 HTTP/2.0 \x20HTTP/1.1\r\n
    GET HEAD POST OPTIONS CONNECT TRACE PRI http://127.0.0.1 http://a@b/ http://[
    GET\x20/\x20HTTP/1.1\r\nHost:\x20x\r\n\r\n HTTP/1.1\x20100\x20Continue\r\n\r\n HTTP/1.1\x20204\x20No\r\n\r\n
""")
HTTP += NUMBERS + LETTERS
TOKENS = words(r"""
    . = == Bearer\x20 bearer\x20\x20 eyJhbGciOiJub25lIn0 A - _ + / , "alg":"none" "alg":["HS256"] "alg":"HS256" hs256
    RS256 "crit":[] "b64":false "b64":true "b64":1 "exp": "nbf": "iat": "aud": "iss": "sub": "models":[5],
    true null Infinity [] [5] {} "them" "us" 1700000030 1699999970 \n "
""")
TOKENS += NUMBERS + LETTERS
STREAMS = words(r"""
    \n \r \r\n \n\n \r\r \r\n\r\n \n\r data:\x20 data: data data:\x20[DONE]\n\n [DONE] :\x20x\n event:\x20e\n
    id:\x20\x00\n data:\x20{"z":1}\n\n {"z":1}\n [ ] { } " NaN \x20 \x00 \xa0 \x1c \x1d \x0b
""")
STREAMS += (b"[" * 200, b'{"a":' * 200, *NUMBERS, *LETTERS)
JSON = words(r"""
    { } [ ] " \\ \\" \\\\ , : "a": "a":1, "a":true, null true NaN -Infinity 1e400 -0 -0.0 01 1. .5 [] {} \x00 \t \\u12
    \\x {"":{"": "a":[{"a":{"a":1,"a":2}}], /**/ '
""")
JSON += (b"[" * 125, b"]" * 125, *NUMBERS, *LETTERS)
