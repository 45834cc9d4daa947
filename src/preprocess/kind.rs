//! What a file is, told by its first bytes.

use std::fmt;

use crate::error::Error;

/// What the first bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
    /// A picture in a format that this crate doesn't read: its name.
    Foreign(&'static str),
    /// Not a picture: what it looks like.
    Other(&'static str),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Foreign(name) | Self::Other(name) => name,
        })
    }
}

impl Kind {
    /// The error of a file that ends too early.
    pub(super) fn cut_short(self) -> Error {
        Error::bad_image(format!(
            "the {self} picture is cut short; save or download it again"
        ))
        .beyond_repair()
    }

    /// The error of a file that its decoder can't make sense of.
    pub(super) fn damaged(self, why: impl fmt::Display) -> Error {
        let error = Error::bad_image(format!(
            "the {self} picture is damaged ({why}); save or download it again"
        ));
        match self {
            // What comes behind the damage can't be told.
            Self::Png | Self::Gif => error.beyond_repair(),
            // Pillow's decoder of JPEG goes on behind it, as browsers' do.
            _ => error,
        }
    }
}

/// What a file is, by its first bytes.
pub(super) fn sniff(bytes: &[u8]) -> Kind {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    if starts(b"\xff\xd8\xff") {
        return Kind::Jpeg;
    }
    if starts(b"\x89PNG\r\n\x1a\n") {
        // Xcode's: raw deflate, blue before red, which only Apple's systems read.
        if bytes.get(12..16) == Some(b"CgBI") {
            return Kind::Foreign("Apple's CgBI variant of PNG");
        }
        return Kind::Png;
    }
    if starts(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Kind::WebP;
    }
    if starts(b"GIF87a") || starts(b"GIF89a") {
        return Kind::Gif;
    }
    if starts(b"BM") && (bytes.get(6..10) == Some(&[0; 4]) || bmp_header(bytes)) {
        return Kind::Bmp;
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        return sniff_brands(bytes);
    }
    if starts(b"\0\0\x02\0\0\0") {
        return Kind::Foreign("Targa");
    }
    const FOREIGN: [(&[u8], &str); 17] = [
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"II+\0", "TIFF"),
        (b"MM\0+", "TIFF"),
        (b"\0\0\x01\0", "ICO"),
        (b"\0\0\x02\0", "CUR"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"II\xbc", "JPEG XR"),
        (b"8BPS", "Photoshop"),
        (b"qoif", "QOI"),
        (b"DDS ", "DDS"),
        (b"\x76\x2f\x31\x01", "OpenEXR"),
        (b"gimp xcf", "GIMP"),
        (b"#?RADIANCE", "Radiance HDR"),
    ];
    for (magic, name) in FOREIGN {
        if starts(magic) {
            return Kind::Foreign(name);
        }
    }
    if let [b'P', b'1'..=b'7', space, ..] = bytes
        && space.is_ascii_whitespace()
    {
        return Kind::Foreign("PNM");
    }
    const OTHER: [(&[u8], &str); 6] = [
        (b"%PDF", "a PDF document"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "gzip-compressed data"),
        (b"\x1a\x45\xdf\xa3", "a video"),
        (b"ID3", "a sound"),
        (b"RIFF", "a video or sound"),
    ];
    for (magic, name) in OTHER {
        if starts(magic) {
            return Kind::Other(name);
        }
    }
    sniff_text(bytes)
}

/// Whether a bitmap's second header has a size that exists.
fn bmp_header(bytes: &[u8]) -> bool {
    let size = bytes.get(14..18).and_then(|size| size.try_into().ok());
    size.is_some_and(|size| {
        matches!(
            u32::from_le_bytes(size),
            12 | 16 | 40 | 52 | 56 | 64 | 108 | 124
        )
    })
}

/// What an ISO base media file is, by the brands in its first box.
fn sniff_brands(bytes: &[u8]) -> Kind {
    let size = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    let brands = bytes[8..bytes.len().min(size.clamp(12, 4096))]
        .as_chunks::<4>()
        .0;
    // The second word is a version.
    let brands = || {
        brands
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != 1)
            .map(|(_, brand)| brand)
    };
    if brands().any(|brand| matches!(brand, b"avif" | b"avis" | b"MA1A" | b"MA1B")) {
        return Kind::Foreign("AVIF");
    }
    const HEIF: [&[u8; 4]; 12] = [
        b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2",
        b"msf1", b"miaf",
    ];
    if brands().any(|brand| HEIF.contains(&brand)) {
        return Kind::Foreign("HEIC");
    }
    match bytes.get(8..12) {
        Some(b"crx ") => Kind::Foreign("raw camera"),
        _ => Kind::Other("a video"),
    }
}

/// What a file is that has no known magic number: SVG and HTML are known by their root element.
fn sniff_text(bytes: &[u8]) -> Kind {
    if bytes.is_empty() {
        return Kind::Other("an empty file");
    }
    let head = &bytes[..bytes.len().min(4096)];
    // UTF-16 as Latin letters, near enough to look for tags.
    let wide = head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff");
    let control = |&byte: &u8| byte < b' ' && !byte.is_ascii_whitespace() && !(wide && byte == 0);
    if head.iter().skip(2 * usize::from(wide)).any(control) {
        return Kind::Other("unknown data");
    }
    let narrowed: Vec<u8>;
    let text = if wide {
        narrowed = bytes[2..]
            .iter()
            .copied()
            .filter(|&byte| byte != 0)
            .collect();
        &narrowed
    } else {
        bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
    };
    let Some(root) = root_element(text) else {
        return Kind::Other("text");
    };
    let local = root.rsplit(|&byte| byte == b':').next().unwrap_or(root);
    if local.eq_ignore_ascii_case(b"svg") {
        Kind::Foreign("SVG")
    } else if root.eq_ignore_ascii_case(b"html") {
        Kind::Other("an HTML page")
    } else {
        Kind::Other("text")
    }
}

/// The name of a document's first element, behind declarations, comments and white space; of its document type, if
/// that is HTML, where elements may be left out.
fn root_element(mut text: &[u8]) -> Option<&[u8]> {
    let after = |text: &'_ [u8], end: &[u8]| {
        text.windows(end.len())
            .position(|window| window == end)
            .map(|at| at + end.len())
    };
    loop {
        text = text.trim_ascii_start();
        let end = if text.starts_with(b"<!--") {
            after(text, b"-->")?
        } else if text.starts_with(b"<?") {
            after(text, b"?>")?
        } else if text.len() > 9 && text[..9].eq_ignore_ascii_case(b"<!doctype") {
            let name = text[9..].trim_ascii_start();
            if name.len() >= 4 && name[..4].eq_ignore_ascii_case(b"html") {
                return Some(&name[..4]);
            }
            // Its own declarations stand in brackets.
            let close = text.iter().position(|&byte| byte == b'>')?;
            match text[..close].contains(&b'[') {
                true => after(text, b"]").and_then(|at| Some(at + after(&text[at..], b">")?))?,
                false => close + 1,
            }
        } else {
            let name = text.strip_prefix(b"<")?;
            let end = name
                .iter()
                .position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'>' | b'/'));
            return Some(&name[..end.unwrap_or(name.len())]);
        };
        text = &text[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_apart_by_their_first_bytes() {
        let cases: [(&[u8], Kind); 27] = [
            (b"\xff\xd8\xff\xe0", Kind::Jpeg),
            (b"\x89PNG\r\n\x1a\n", Kind::Png),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Kind::WebP),
            (b"RIFF\x10\0\0\0WAVEfmt ", Kind::Other("a video or sound")),
            (b"GIF89a", Kind::Gif),
            (b"BM\x46\0\0\0\0\0\0\0", Kind::Bmp),
            (b"BM\x46\0\0\0by m\x36\0\0\0\x28\0\0\0", Kind::Bmp),
            (b"BMW is a car maker", Kind::Other("text")),
            (b"\0\0\0\x20ftypavif\0\0\0\0", Kind::Foreign("AVIF")),
            (b"\0\0\0\x20ftypmif1\0\0\0\0mif1avif", Kind::Foreign("AVIF")),
            (b"\0\0\0\x18ftypheic\0\0\0\0", Kind::Foreign("HEIC")),
            (b"\0\0\0\x18ftypmp42\0\0\0\0", Kind::Other("a video")),
            (b"II*\0\x08\0\0\0", Kind::Foreign("TIFF")),
            (b"MM\0*\0\0\0\x08", Kind::Foreign("TIFF")),
            (b"\0\0\x01\0\x01\0", Kind::Foreign("ICO")),
            (b"\0\0\x02\0\x01\0", Kind::Foreign("CUR")),
            (b"\0\0\x02\0\0\0", Kind::Foreign("Targa")),
            (b"\xff\x0a\xfa", Kind::Foreign("JPEG XL")),
            (b"P6\n1 1\n255\n", Kind::Foreign("PNM")),
            (
                b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<svg xmlns",
                Kind::Foreign("SVG"),
            ),
            (b"\xff\xfe<\0s\0v\0g\0 \0", Kind::Foreign("SVG")),
            (b"  <!DOCTYPE HTML><html><svg>", Kind::Other("an HTML page")),
            (b"<!-- <svg> --><html>", Kind::Other("an HTML page")),
            (b"<note><svg/></note>", Kind::Other("text")),
            (b"{\"error\": 404}", Kind::Other("text")),
            (b"", Kind::Other("an empty file")),
            (b"\x01\x02\x03\x04", Kind::Other("unknown data")),
        ];
        for (bytes, kind) in cases {
            assert_eq!(sniff(bytes), kind, "{}", bytes.escape_ascii());
        }
    }
}
