"""Whatever a file carries, its outputs carry its artist and copyright, and nothing else."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from imgflow.images.formats.decoding import Limits
from imgflow.images.outputs import process_photo
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow_tests.images.pictures import encoded, opened, rgb_profile, scene

ALL = ("grayscale", "thumbnail", "proof")
RECIPE = PhotoRecipe(watermark_text="PROOF")
SECRET = "SECRET"  # noqa: S105 - what must not get out
ARTIST, RIGHTS = 0x013B, 0x8298

XMP = f"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
exif:GPSLatitude="52,31N{SECRET}">
<dc:creator><rdf:Seq><rdf:li>Zoë &amp; Co</rdf:li></rdf:Seq></dc:creator>
<dc:rights>
  <rdf:Alt> <rdf:li xml:lang="x-default">© 2026 Zoë</rdf:li> </rdf:Alt>
</dc:rights>
<dc:description><rdf:Alt><rdf:li>{SECRET}</rdf:li></rdf:Alt></dc:description>
</rdf:Description></rdf:RDF></x:xmpmeta>""".encode()


def full_exif() -> Image.Exif:
    """Every place of EXIF in which something private stands."""
    exif = Image.Exif()
    for tag in (0x010E, 0x010F, 0x0110, 0x0131, 0x013C, 0x9C9D):
        exif[tag] = SECRET
    details = exif.get_ifd(ExifTags.IFD.Exif)
    for tag in (0x927C, 0x9286, 0xA430, 0xA431, 0xA433, 0xA435):
        details[tag] = SECRET.encode() if tag in (0x927C, 0x9286) else SECRET
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (52.0, 31.0, 12.0), 29: SECRET})
    exif.get_ifd(ExifTags.IFD.IFD1)[0x010E] = SECRET
    return exif


def iptc(*records: tuple[int, bytes]) -> bytes:
    """IPTC records in the form in which Photoshop writes them into a JPEG."""
    body = b"".join(
        b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(text)) + text
        for number, text in records
    )
    block = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(body)) + body + bytes(len(body) % 2)
    payload = b"Photoshop 3.0\0" + block
    return b"\xff\xed" + struct.pack(">H", len(payload) + 2) + payload


def with_segment(jpeg: bytes, segment: bytes) -> bytes:
    return jpeg[:2] + segment + jpeg[2:]


def picture(format_name: str) -> bytes:
    """A picture with something private wherever its format has a place for it."""
    exif = full_exif()
    if format_name == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        for tag in (269, 270, 271, 272, 285, 305, 315 + 1):
            tags[tag] = SECRET
        tags[700] = XMP
        tags[33723] = iptc((120, SECRET.encode()))[18 + 12 :]
        return encoded(scene(), "TIFF", tiffinfo=tags, icc_profile=rgb_profile())
    if format_name == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", SECRET)
        text.add_text("Description", SECRET, zip=True)
        text.add_itxt("XML:com.adobe.xmp", XMP.decode())
        text.add_itxt("Title", SECRET, lang="en", tkey=SECRET)
        return encoded(scene(), "PNG", pnginfo=text, exif=exif.tobytes(), icc_profile=rgb_profile())
    if format_name == "GIF":
        return encoded(scene(), "GIF", comment=SECRET.encode())
    options = {} if format_name == "JPEG2000" else {"exif": exif.tobytes(), "xmp": XMP}
    if format_name in ("JPEG", "JPEG2000"):
        options["comment"] = SECRET.encode()
    data = encoded(scene(), format_name, **options)
    if format_name == "JPEG":
        data = with_segment(data, iptc((120, SECRET.encode()), (90, b"SECRET CITY")))
    return data


@pytest.mark.parametrize(
    "format_name", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF", "GIF", "JPEG2000"]
)
@pytest.mark.parametrize("thumbnail_format", ["jpeg", "png", "webp"])
def test_nothing_private_reaches_an_output(format_name: str, thumbnail_format: str) -> None:
    data = picture(format_name)
    assert SECRET.encode() in data
    recipe = PhotoRecipe(watermark_text="PROOF", thumbnail_format=thumbnail_format)
    for name, output in process_photo(data, recipe, Limits(), ALL).outputs.items():
        for private in (SECRET.encode(), b"xmpmeta", b"8BIM", b"acsp", b"ICC_PROFILE", b"52,31N"):
            assert private not in output.data, (name, private)
        image = opened(output)
        assert set(image.getexif()) <= {ARTIST, RIGHTS}
        assert set(image.info) <= {
            *("exif", "jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi"),
            *("loop", "background", "timestamp", "duration"),
        }, image.info.keys()


def credit(data: bytes) -> tuple[str, str]:
    """Artist and copyright that all outputs carry."""
    found = set()
    for output in process_photo(data, RECIPE, Limits(), ALL).outputs.values():
        exif = opened(output).getexif()
        texts = (exif.get(ARTIST, ""), exif.get(RIGHTS, ""))
        found.add(tuple(text.encode("latin-1").decode() for text in texts))
    (only,) = found
    return only  # type: ignore[return-value]


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_artist_and_copyright_of_xmp_reach_every_output(format_name: str) -> None:
    assert credit(picture(format_name)) == ("Zoë & Co", "© 2026 Zoë")


@pytest.mark.parametrize("text", ["© Zoë".encode(), "© Zoë".encode("latin-1")])
def test_artist_and_copyright_of_iptc_reach_every_output(text: bytes) -> None:
    records = ((80, b"Zoe"), (80, b"Second"), (116, text))
    data = with_segment(encoded(scene(), "JPEG"), iptc(*records))
    assert credit(data) == ("Zoe", "© Zoë")


def test_artist_and_copyright_of_a_pngs_text_reach_every_output() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "Zoë")
    text.add_itxt("Copyright", "© 写真")
    assert credit(encoded(scene(), "PNG", pnginfo=text)) == ("Zoë", "© 写真")


def test_exif_goes_before_the_others_each_for_itself() -> None:
    exif = Image.Exif()
    exif[RIGHTS] = "(c) by EXIF"
    data = encoded(scene(), "JPEG", exif=exif.tobytes(), xmp=XMP)
    assert credit(data) == ("Zoë & Co", "(c) by EXIF")


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xed\x00\x20Photoshop 3.0\x008BIM\x04\x04\0\0\xff\xff\xff\xff\x1c\x02",
        iptc((116, b""))[:-3],
        iptc((116, b"x"))[:-1] + b"\x1c\x02\x74\xff\xff",
    ],
)
def test_damaged_iptc_is_no_reason_to_reject(segment: bytes) -> None:
    data = encoded(scene(), "JPEG")
    fixed = segment[:2] + struct.pack(">H", len(segment) - 2) + segment[4:]
    made = process_photo(with_segment(data, fixed), RECIPE, Limits(), ALL)
    assert made.facts.format == "JPEG"


def test_a_huge_xmp_packet_costs_no_time() -> None:
    hostile = b"<dc:rights><rdf:Alt>" + b"<dc:rights> " * 5_000 + b" " * 900_000
    file = io.BytesIO()
    scene().save(file, "WEBP", xmp=hostile)
    assert credit(file.getvalue()) == ("", "")
