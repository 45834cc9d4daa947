//! What a file is, told by its first bytes.

use std::fmt;

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

/// What a file is, by its first bytes.
pub(super) fn sniff(bytes: &[u8]) -> Kind {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    if starts(b"\xff\xd8\xff") {
        return Kind::Jpeg;
    }
    if starts(b"\x89PNG\r\n\x1a\n") {
        return Kind::Png;
    }
    if starts(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Kind::WebP;
    }
    if starts(b"GIF87a") || starts(b"GIF89a") {
        return Kind::Gif;
    }
    if starts(b"BM") && bytes.get(6..10) == Some(&[0; 4]) {
        return Kind::Bmp;
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        return match bytes.get(8..12) {
            Some(b"avif" | b"avis") => Kind::Foreign("AVIF"),
            Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1") => {
                // The generic brands are shared by AVIF, which then comes among the compatible ones.
                let brands = &bytes[..bytes.len().min(64)];
                if brands.windows(4).any(|brand| brand == b"avif") {
                    Kind::Foreign("AVIF")
                } else {
                    Kind::Foreign("HEIC")
                }
            }
            Some(b"crx ") => Kind::Foreign("raw camera"),
            _ => Kind::Other("a video"),
        };
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

/// What a file is that has no known magic number: SVG and HTML are known by their tags.
fn sniff_text(bytes: &[u8]) -> Kind {
    if bytes.is_empty() {
        return Kind::Other("an empty file");
    }
    let head = &bytes[..bytes.len().min(4096)];
    // UTF-16 as Latin letters, near enough to look for tags.
    let text: Vec<u8> = if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        head[2..]
            .iter()
            .copied()
            .filter(|&byte| byte != 0)
            .collect()
    } else {
        head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).to_vec()
    };
    if text
        .iter()
        .any(|&byte| byte < b' ' && !byte.is_ascii_whitespace())
    {
        return Kind::Other("unknown data");
    }
    let text = text.trim_ascii_start().to_ascii_lowercase();
    let find = |tag: &[u8]| text.windows(tag.len()).position(|window| window == tag);
    let svg = find(b"<svg").or_else(|| find(b":svg"));
    let html = find(b"<html").or_else(|| find(b"<!doctype html"));
    match (svg, html) {
        _ if !text.starts_with(b"<") => Kind::Other("text"),
        (Some(svg), html) if html.is_none_or(|html| svg < html) => Kind::Foreign("SVG"),
        (_, Some(_)) => Kind::Other("an HTML page"),
        _ => Kind::Other("text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_apart_by_their_first_bytes() {
        let cases: [(&[u8], Kind); 22] = [
            (b"\xff\xd8\xff\xe0", Kind::Jpeg),
            (b"\x89PNG\r\n\x1a\n", Kind::Png),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Kind::WebP),
            (b"RIFF\x10\0\0\0WAVEfmt ", Kind::Other("a video or sound")),
            (b"GIF89a", Kind::Gif),
            (b"BM\x46\0\0\0\0\0\0\0", Kind::Bmp),
            (b"BMW is a car maker", Kind::Other("text")),
            (b"\0\0\0\x20ftypavif\0\0\0\0", Kind::Foreign("AVIF")),
            (b"\0\0\0\x20ftypmif1\0\0\0\0mif1avif", Kind::Foreign("AVIF")),
            (b"\0\0\0\x18ftypheic\0\0\0\0", Kind::Foreign("HEIC")),
            (b"\0\0\0\x18ftypmp42\0\0\0\0", Kind::Other("a video")),
            (b"II*\0\x08\0\0\0", Kind::Foreign("TIFF")),
            (b"MM\0*\0\0\0\x08", Kind::Foreign("TIFF")),
            (b"\0\0\x01\0\x01\0", Kind::Foreign("ICO")),
            (b"\xff\x0a\xfa", Kind::Foreign("JPEG XL")),
            (b"P6\n1 1\n255\n", Kind::Foreign("PNM")),
            (
                b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<svg xmlns",
                Kind::Foreign("SVG"),
            ),
            (b"\xff\xfe<\0s\0v\0g\0 \0", Kind::Foreign("SVG")),
            (b"  <!DOCTYPE HTML><html><svg>", Kind::Other("an HTML page")),
            (b"{\"error\": 404}", Kind::Other("text")),
            (b"", Kind::Other("an empty file")),
            (b"\x01\x02\x03\x04", Kind::Other("unknown data")),
        ];
        for (bytes, kind) in cases {
            assert_eq!(sniff(bytes), kind, "{}", bytes.escape_ascii());
        }
    }
}
