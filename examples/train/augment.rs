//! Variations of a picture: another one each time it is seen.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use siglip_web::preprocess::Image;
use siglip_web::{Result, preprocess};

/// A way to vary pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Augmentation {
    /// As they are
    None,
    /// A window of 0.7 to 1.15 of each side anywhere over the picture
    Crop,
    /// Mirrored half of the time
    Flip,
    /// Brightness, contrast and saturation changed by up to 0.25
    Colour,
    /// A random colour behind transparent parts and around the picture, half of the time
    Background,
}

/// Sides of the window that `crop` shows, as a share of the picture's.
const WINDOW: (f32, f32) = (0.7, 1.15);
/// Most that `colour` changes each factor by.
const JITTER: f32 = 0.25;

/// A picture that can be laid over any colour: what it is over white and, if that differs, over black.
#[derive(Clone, Debug)]
pub struct Source {
    white: Image,
    black: Option<Image>,
}

impl Source {
    /// Decodes a picture file; sides longer than `longest` are shrunk to it.
    pub fn decode(bytes: &[u8], longest: u32) -> Result<Self> {
        let shrunk = |image: Image| {
            let (width, height) = (image.width(), image.height());
            match width > longest || height > longest {
                true => image.resize(width.min(longest), height.min(longest)),
                false => Ok(image),
            }
        };
        let white = preprocess::decode(bytes)?;
        let black = preprocess::decode_over(bytes, 0)?;
        let black = (black != white).then_some(black);
        Ok(Self {
            white: shrunk(white)?,
            black: black.map(shrunk).transpose()?,
        })
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.white.rgb().len() * (1 + usize::from(self.black.is_some()))
    }

    /// One variation.
    pub fn vary(&self, ways: &[Augmentation], random: &mut ChaCha8Rng) -> Result<Image> {
        let does = |way| ways.contains(&way);
        let (width, height) = (self.white.width() as i64, self.white.height() as i64);
        // Everything is drawn always, so that one way doesn't change what another draws.
        let window = [width, height].map(|side| {
            let seen = (side as f32 * random.random_range(WINDOW.0..WINDOW.1)).round() as i64;
            let seen = seen.max(1);
            // Within the picture, or the picture within it.
            let (low, high) = ((side - seen).min(0), (side - seen).max(0));
            (random.random_range(low..=high), seen)
        });
        let flip = random.random_bool(0.5) && does(Augmentation::Flip);
        let colour: [u8; 3] = random.random();
        let background = match random.random_bool(0.5) && does(Augmentation::Background) {
            true => colour,
            false => [255; 3],
        };
        let factors: [f32; 3] =
            std::array::from_fn(|_| random.random_range(1.0 - JITTER..1.0 + JITTER));
        let [(left, columns), (top, rows)] = match does(Augmentation::Crop) {
            true => window,
            false => [(0, width), (0, height)],
        };

        let mut rgb = Vec::with_capacity((rows * columns * 3) as usize);
        for row in top..top + rows {
            for column in left..left + columns {
                let column = match flip {
                    true => 2 * left + columns - 1 - column,
                    false => column,
                };
                let inside = (0..height).contains(&row) && (0..width).contains(&column);
                rgb.extend(match inside {
                    true => self.over(((row * width + column) * 3) as usize, background),
                    false => background,
                });
            }
        }
        if does(Augmentation::Colour) {
            jitter(&mut rgb, factors);
        }
        Image::from_rgb(columns as u32, rows as u32, rgb)
    }

    /// The pixel whose samples begin at `at`, over a colour.
    fn over(&self, at: usize, colour: [u8; 3]) -> [u8; 3] {
        let white = &self.white.rgb()[at..at + 3];
        let Some(black) = &self.black else {
            return [white[0], white[1], white[2]];
        };
        let black = &black.rgb()[at..at + 3];
        std::array::from_fn(|i| {
            // What shines through of white is the share that shines through of any colour.
            let through = u32::from(white[i].saturating_sub(black[i]));
            let sum = u32::from(black[i]) + (through * u32::from(colour[i]) + 127) / 255;
            sum.min(255) as u8
        })
    }
}

/// Changes brightness, contrast (around mid-gray) and saturation by their factors.
fn jitter(rgb: &mut [u8], [brightness, contrast, saturation]: [f32; 3]) {
    for pixel in rgb.as_chunks_mut::<3>().0 {
        let [r, g, b] = pixel.map(|v| (f32::from(v) * brightness - 128.0) * contrast + 128.0);
        let gray = 0.299 * r + 0.587 * g + 0.114 * b;
        *pixel = [r, g, b].map(|v| (gray + (v - gray) * saturation).round() as u8);
    }
}
