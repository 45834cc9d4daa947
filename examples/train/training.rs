//! The run: batches, steps, looks at the held-out pictures, saves.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::atomic::AtomicI64;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Int, Tensor, TensorData};
use indicatif::{ProgressBar, ProgressStyle};
use rand::rngs::ChaCha8Rng;
use rand::seq::{IteratorRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use siglip_web::checkpoint::{Checkpoint, Folder, SmallFiles};
use siglip_web::kernels::to_vec;
use siglip_web::loss::sigmoid_loss;
use siglip_web::model::{Siglip, SiglipConfig};
use siglip_web::preprocess::Preprocessor;
use siglip_web::tokenizer::Tokenizer;
use siglip_web::{Code, Error, LoadOptions, Result, device};

use crate::augment::Augmentation;
use crate::data::{DataSet, Example};
use crate::parameters::{Parameters, loaded, scalar};
use crate::pictures::Pictures;
use crate::{Options, Part, bad_input, state};

/// Batches that are made ready while a step runs.
const AHEAD: usize = 2;
/// Texts or pictures that run through a tower together where nothing is trained.
const RUN_TOGETHER: usize = 64;

/// What a run did.
#[derive(Debug, Default)]
pub struct Summary {
    /// The loss of each step.
    pub losses: Vec<f32>,
    /// The held-out pictures before the first step and after the last.
    pub held_out: [Option<Measured>; 2],
}

/// How well the held-out pictures are told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Over all pairs of held-out pictures and their captions.
    pub loss: f32,
    /// Share of pictures whose most probable caption, of all held-out ones, is one of their own.
    pub accuracy: f32,
}

/// Random numbers of their own for each purpose and place of a run: there is no state to save but the seed.
pub fn random(seed: u64, purpose: &str, a: usize, b: usize) -> ChaCha8Rng {
    let mut word = [0; 8];
    word[..purpose.len()].copy_from_slice(purpose.as_bytes());
    let words = [
        seed.to_le_bytes(),
        word,
        (a as u64).to_le_bytes(),
        (b as u64).to_le_bytes(),
    ];
    ChaCha8Rng::from_seed(words.concat().try_into().expect("32 bytes"))
}

/// Trains as the options say.
pub fn run(options: &Options) -> Result<Summary> {
    check(options)?;
    let data = DataSet::read(&options.data, options.held_out.as_ref(), options.seed)?;
    let device = device::open(options.backend)?;
    let start = Start::load(options, &device)?;
    let mut parameters = Parameters::new(&start.config, start.values, &device, options);
    let batch = options.batch.min(data.train.len());
    let per_epoch = data.train.len() / batch;
    let steps = options.steps.unwrap_or(options.epochs * per_epoch);
    let rate = Rate::new(
        options.lr.unwrap_or(if options.init { 1e-3 } else { 1e-4 }),
        options.warmup.unwrap_or(steps / 10),
        steps,
    );
    let model = parameters.fingerprint()?;
    let description = describe(options, &model, &data, &rate, batch);
    let first = state::resume(&options.out, &mut parameters, &description, &device)?;
    if first.is_some() && !options.resume {
        return Err(bad_input(format!(
            "{} holds a run already: add --resume to go on with it, or choose another --out",
            options.out.display()
        )));
    }
    let first = first.unwrap_or(0);

    let prompts = Prompts::new(&data, &options.templates, &start.tokenizer)?;
    let budget = AtomicI64::new((options.cache as i64).saturating_mul(1 << 20));
    let bar = ProgressBar::new((data.train.len() + data.held_out.len()) as u64)
        .with_style(style("reading pictures {bar:30} {pos}/{len}"));
    let read = |examples, ways: &[Augmentation]| {
        Pictures::read(examples, &start.preprocessor, ways, &budget, || bar.inc(1))
    };
    let run = Run {
        options,
        train: read(&data.train, &options.augment)?,
        held_out: read(&data.held_out, &[])?,
        data: &data,
        prompts,
        device,
        batch,
        per_epoch,
    };
    bar.finish_and_clear();
    eprintln!(
        "{} pictures to train on, {} held out, {} captions; {steps} steps of {batch} pictures{}",
        data.train.len(),
        data.held_out.len(),
        data.captions.len(),
        match first {
            0 => String::new(),
            first => format!(", {first} of them done"),
        }
    );
    let summary = run.steps(&mut parameters, first, &rate, &description)?;
    if options.killed_after.is_none() {
        let (model, out) = (&options.model, &options.out);
        state::write_checkpoint(model, start.json, out, &parameters, options.dtype)?;
        eprintln!("the trained checkpoint is in {}", options.out.display());
    }
    Ok(summary)
}

/// Refuses options that make no sense, before anything is read.
fn check(options: &Options) -> Result<()> {
    let positive = [
        ("--batch", options.batch),
        ("--save-every", options.save_every),
        ("--eval-every", options.eval_every),
        ("--steps", options.steps.unwrap_or(1)),
        ("--epochs", options.epochs),
    ];
    if let Some((flag, _)) = positive.iter().find(|(_, value)| *value == 0) {
        return Err(bad_input(format!("{flag} 0: at least 1 is needed")));
    }
    let numbers = [
        ("--lr", options.lr.unwrap_or(1.0), f64::MIN_POSITIVE, 1e3),
        ("--clip", options.clip, f64::MIN_POSITIVE, f64::MAX),
        ("--weight-decay", options.weight_decay.into(), 0.0, 1e3),
        ("--beta-2", options.beta_2.into(), 0.0, 0.999_999),
        (
            "--logit-bias",
            options.logit_bias.unwrap_or(0.0).into(),
            -1e3,
            1e3,
        ),
    ];
    for (flag, value, lowest, highest) in numbers {
        if !(lowest..=highest).contains(&value) {
            return Err(bad_input(format!("{flag} {value} is out of range")));
        }
    }
    if let Some(template) = options.templates.iter().find(|t| !t.contains("{}")) {
        return Err(bad_input(format!(
            "--template {template:?} has no {{}} for the caption"
        )));
    }
    let parts = [Part::Vision, Part::Text, Part::Scale];
    if parts.iter().all(|part| options.freeze.contains(part)) {
        return Err(bad_input("--freeze: nothing is left to train"));
    }
    let out = &options.out;
    std::fs::create_dir_all(out)
        .map_err(|error| bad_input(format!("{} can't be made: {error}", out.display())))?;
    if let (Ok(model), Ok(out)) = (options.model.canonicalize(), out.canonicalize())
        && model == out
    {
        return Err(bad_input(
            "--model and --out are the same folder; choose another --out",
        ));
    }
    Ok(())
}

/// What a run must have in common with one that it resumes, by the names of the flags.
fn describe(options: &Options, model: &str, data: &DataSet, rate: &Rate, batch: usize) -> Value {
    let words = |list: &[&dyn std::fmt::Debug]| -> Vec<String> {
        list.iter().map(|word| format!("{word:?}")).collect()
    };
    let freeze: Vec<&dyn std::fmt::Debug> = options.freeze.iter().map(|p| p as _).collect();
    let augment: Vec<&dyn std::fmt::Debug> = options.augment.iter().map(|a| a as _).collect();
    json!({
        "captions": data.fingerprint(),
        "--model": model,
        "--seed": options.seed,
        "--init": options.init,
        "--freeze": words(&freeze),
        "--batch": batch,
        "--extra-captions": options.extra_captions,
        "--steps": rate.steps,
        "--lr": rate.highest,
        "--warmup": rate.warmup,
        "--weight-decay": options.weight_decay,
        "--beta-2": options.beta_2,
        "--clip": options.clip,
        "--logit-bias": options.logit_bias,
        "--augment": words(&augment),
        "--template": options.templates,
    })
}

/// The learning rate: up from 0 in a straight line, down to 0 along half a cosine.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    highest: f64,
    warmup: usize,
    steps: usize,
}

impl Rate {
    /// Rises for `warmup` of `steps` to `highest`.
    pub fn new(highest: f64, warmup: usize, steps: usize) -> Self {
        Self {
            highest,
            warmup: warmup.min(steps),
            steps,
        }
    }

    /// Of the step with this number, from 0.
    pub fn at(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.highest * (step + 1) as f64 / self.warmup as f64;
        }
        let done = (step - self.warmup) as f64 / (self.steps - self.warmup).max(1) as f64;
        self.highest * (1.0 + (std::f64::consts::PI * done).cos()) / 2.0
    }
}

/// The checkpoint that a run starts from.
struct Start {
    config: SiglipConfig,
    preprocessor: Preprocessor,
    tokenizer: Tokenizer,
    /// `config.json`.
    json: Map<String, Value>,
    /// Those of the weights; none where they are to be random.
    values: Option<Vec<Tensor<1>>>,
}

fn no_text_tower(model: &Path) -> Error {
    Error::new(
        Code::Unsupported,
        format!(
            "{} has no text tower: it was converted for fixed labels, or fine-tuned for labels of its own; train the checkpoint that it was made from",
            model.display()
        ),
    )
}

fn check_shape(config: &SiglipConfig) -> Result<()> {
    match config.vision.naflex {
        true => Err(Error::new(
            Code::Unsupported,
            "config.json: model_type is \"siglip2\" (NaFlex), which can't be trained; take a checkpoint of fixed resolution",
        )),
        false => Ok(()),
    }
}

impl Start {
    fn load(options: &Options, device: &Device) -> Result<Self> {
        let folder = Folder::new(&options.model)?;
        let SmallFiles {
            config,
            preprocessor,
            tokenizer,
            json,
            ..
        } = SmallFiles::read(&folder)?;
        let tokenizer = tokenizer.ok_or_else(|| no_text_tower(&options.model))?;
        check_shape(&config)?;
        let values = match options.init {
            true => None,
            false => {
                let exact = Checkpoint::load(&folder, &LoadOptions::exact(), device)?;
                Some(loaded(exact, device)?)
            }
        };
        Ok(Self {
            config,
            preprocessor,
            tokenizer,
            json,
            values,
        })
    }
}

/// Every caption in every template, as token ids. What is the same to the model is one prompt: captions may differ in letters or signs
/// that it doesn't read, or behind what it reads, and a caption may say what another one's template does.
pub struct Prompts {
    ids: Vec<Vec<i32>>,
    /// The captions that each is of.
    captions: Vec<Vec<usize>>,
    /// The prompt of `caption · templates + template`.
    of: Vec<usize>,
    templates: usize,
}

impl Prompts {
    pub fn new(data: &DataSet, templates: &[String], tokenizer: &Tokenizer) -> Result<Self> {
        let blank = tokenizer.encode("")?;
        let mut prompts = Self {
            ids: Vec::new(),
            captions: Vec::new(),
            of: Vec::with_capacity(data.captions.len() * templates.len()),
            templates: templates.len(),
        };
        let mut numbers: HashMap<Vec<u32>, usize> = HashMap::new();
        for (number, caption) in data.captions.iter().enumerate() {
            if tokenizer.encode(caption)? == blank {
                return Err(bad_input(format!(
                    "the caption {caption:?} has nothing that the model reads; use words"
                )));
            }
            for template in templates {
                let ids = tokenizer.encode(&template.replace("{}", caption))?;
                let prompt = match numbers.entry(ids) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(new) => {
                        let ids = new.key().iter().map(|id| *id as i32);
                        prompts.ids.push(ids.collect());
                        prompts.captions.push(Vec::new());
                        *new.insert(prompts.ids.len() - 1)
                    }
                };
                prompts.captions[prompt].push(number);
                prompts.of.push(prompt);
            }
        }
        Ok(prompts)
    }

    /// Of a caption in a template.
    pub fn of(&self, caption: usize, template: usize) -> usize {
        self.of[caption * self.templates + template]
    }

    /// `z` of the loss: the most that [`Example::target`] has for any of the prompt's captions.
    pub fn target(&self, example: &Example, prompt: usize) -> f32 {
        let captions = self.captions[prompt].iter();
        let targets = captions.map(|caption| example.target(*caption));
        targets.fold(-1.0, f32::max)
    }

    fn tensor(&self, prompts: &[usize], device: &Device) -> Tensor<2, Int> {
        let ids: Vec<i32> = prompts
            .iter()
            .flat_map(|p| &self.ids[*p])
            .copied()
            .collect();
        let shape = [prompts.len(), ids.len() / prompts.len()];
        Tensor::from_data(TensorData::new(ids, shape), device)
    }
}

/// One step's pictures and captions.
struct Batch {
    pictures: Vec<usize>,
    /// `[batch, 3, side, side]`, unless embeddings of the pictures are at hand.
    pixel_values: Vec<f32>,
    prompts: Vec<usize>,
    /// `[pictures, prompts]`.
    targets: Vec<f32>,
}

/// Embeddings by a frozen tower: rows of this length.
struct Embeddings {
    values: Vec<f32>,
    hidden: usize,
}

impl Embeddings {
    fn tensor(&self, rows: &[usize], device: &Device) -> Tensor<2> {
        let row = |index: &usize| &self.values[index * self.hidden..][..self.hidden];
        let values: Vec<f32> = rows.iter().flat_map(row).copied().collect();
        Tensor::from_data(TensorData::new(values, [rows.len(), self.hidden]), device)
    }
}

/// What stays the same during a run.
struct Run<'a> {
    options: &'a Options,
    data: &'a DataSet,
    train: Pictures<'a>,
    held_out: Pictures<'a>,
    prompts: Prompts,
    device: Device,
    batch: usize,
    per_epoch: usize,
}

/// What frozen towers made of that which doesn't change.
#[derive(Default)]
struct Frozen {
    train: Option<Embeddings>,
    held_out: Option<Embeddings>,
    prompts: Option<Embeddings>,
}

impl Run<'_> {
    fn steps(
        &self,
        parameters: &mut Parameters,
        first: usize,
        rate: &Rate,
        description: &Value,
    ) -> Result<Summary> {
        let frozen = self.frozen(parameters)?;
        let captions: Vec<usize> = {
            let own = self.data.train.iter().flat_map(|example| &example.captions);
            own.copied().collect::<BTreeSet<_>>().into_iter().collect()
        };
        let mut summary = Summary::default();
        let mut display = Display::new(first, rate.steps);
        let measured = self.measure(parameters, &frozen)?;
        display.measured(first, measured);
        summary.held_out = [measured; 2];
        let needs_pixels = frozen.train.is_none();
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::sync_channel(AHEAD);
            let captions = &captions;
            scope.spawn(move || {
                for step in first..rate.steps {
                    // Fails when nobody wants more.
                    if sender
                        .send(self.batch(step, captions, needs_pixels))
                        .is_err()
                    {
                        return;
                    }
                }
            });
            for step in first..rate.steps {
                let began = Instant::now();
                let batch = receiver
                    .recv()
                    .expect("the other thread sends every batch")?;
                let loss = self.step(parameters, &frozen, batch, rate.at(step), step)?;
                display.steps_took += began.elapsed();
                summary.losses.push(loss);
                let done = step + 1;
                display.step(loss, self.batch);
                if done % self.options.eval_every == 0 || done == rate.steps {
                    let measured = self.measure(parameters, &frozen)?;
                    display.measured(done, measured);
                    summary.held_out[1] = measured;
                }
                if done % self.options.save_every == 0 || done == rate.steps {
                    state::save(&self.options.out, parameters, done, description)?;
                }
                if self.options.killed_after == Some(done) {
                    break;
                }
            }
            drop(receiver);
            display.finish(summary.losses.len() * self.batch);
            Ok(summary)
        })
    }

    /// The pictures, captions and truths of a step, which follow from its number and the seed.
    fn batch(&self, step: usize, captions: &[usize], needs_pixels: bool) -> Result<Batch> {
        let seed = self.options.seed;
        let mut order: Vec<usize> = (0..self.train.len()).collect();
        order.shuffle(&mut random(seed, "order", step / self.per_epoch, 0));
        let at = step % self.per_epoch * self.batch;
        let pictures = order[at..at + self.batch].to_vec();

        let mut dice = random(seed, "step", step, 0);
        // A caption that was drawn for several pictures is asked once.
        let mut asked = BTreeSet::new();
        for picture in &pictures {
            let own = &self.data.train[*picture].captions;
            asked.insert(own[dice.random_range(0..own.len())]);
        }
        let others = captions.iter().filter(|caption| !asked.contains(caption));
        let extra = others
            .copied()
            .sample(&mut dice, self.options.extra_captions);
        asked.extend(extra);
        let templates = self.prompts.templates;
        let prompts: BTreeSet<usize> = asked
            .iter()
            .map(|caption| {
                let template = dice.random_range(0..templates);
                self.prompts.of(*caption, template)
            })
            .collect();
        let prompts: Vec<usize> = prompts.into_iter().collect();
        let truth = |picture: &usize| {
            let example: &Example = &self.data.train[*picture];
            let asked = prompts.iter();
            asked.map(|prompt| self.prompts.target(example, *prompt))
        };
        let targets = pictures.iter().flat_map(truth).collect();

        let pixel_values = match needs_pixels {
            false => Vec::new(),
            true => {
                let varied = pictures.par_iter().enumerate().map(|(slot, picture)| {
                    let mut dice = random(seed, "picture", step, slot);
                    self.train.pixel_values(*picture, &mut dice)
                });
                varied.collect::<Result<Vec<_>>>()?.concat()
            }
        };
        Ok(Batch {
            pictures,
            pixel_values,
            prompts,
            targets,
        })
    }

    /// One step; returns its loss.
    fn step(
        &self,
        parameters: &mut Parameters,
        frozen: &Frozen,
        batch: Batch,
        rate: f64,
        step: usize,
    ) -> Result<f32> {
        let (model, leaves) = parameters.model();
        let device = |part| match self.options.freeze.contains(&part) {
            // Not differentiated: the towers' fast kernels.
            true => self.device.clone(),
            false => self.device.clone().autodiff(),
        };
        let images = match &frozen.train {
            Some(embeddings) => embeddings.tensor(&batch.pictures, &self.device),
            None => model.embed_images(pixels(
                batch.pixel_values,
                batch.pictures.len(),
                &device(Part::Vision),
            )),
        };
        let texts = match &frozen.prompts {
            Some(embeddings) => embeddings.tensor(&batch.prompts, &self.device),
            None => model.embed_texts(self.prompts.tensor(&batch.prompts, &device(Part::Text))),
        };
        let shape = [batch.pictures.len(), batch.prompts.len()];
        let targets = TensorData::new(batch.targets, shape);
        let differentiated = self.device.clone().autodiff();
        let targets = Tensor::from_data(targets, &differentiated);
        let logits = model.logits(images.autodiff(), texts.autodiff());
        let loss = sigmoid_loss(logits, targets);
        let value = scalar(loss.clone().inner())?;
        let diverged = |error: Error| {
            Error::new(
                error.code(),
                format!("step {}: {}", step + 1, error.message()),
            )
        };
        parameters
            .step(&leaves, loss.backward(), rate, step + 1)
            .map_err(diverged)?;
        device::fault(&self.device)?;
        Ok(value)
    }

    /// What frozen towers make of that which doesn't change, once for the whole run.
    fn frozen(&self, parameters: &Parameters) -> Result<Frozen> {
        let is = |part| self.options.freeze.contains(&part);
        let model = parameters.frozen_model();
        let mut frozen = Frozen::default();
        if is(Part::Vision) {
            frozen.held_out = Some(self.embed_pictures(&model, &self.held_out)?);
            if self.train.fixed() {
                frozen.train = Some(self.embed_pictures(&model, &self.train)?);
            }
        }
        if is(Part::Text) {
            let all: Vec<usize> = (0..self.prompts.ids.len()).collect();
            frozen.prompts = Some(self.embed_prompts(&model, &all)?);
        }
        Ok(frozen)
    }

    fn embed_pictures(&self, model: &Siglip, pictures: &Pictures) -> Result<Embeddings> {
        let all: Vec<usize> = (0..pictures.len()).collect();
        embed(&all, |some| {
            let read = some
                .par_iter()
                .map(|index| pictures.pixel_values(*index, &mut random(0, "", 0, 0)));
            let values = read.collect::<Result<Vec<_>>>()?.concat();
            Ok(model.embed_images(pixels(values, some.len(), &self.device)))
        })
    }

    fn embed_prompts(&self, model: &Siglip, prompts: &[usize]) -> Result<Embeddings> {
        embed(prompts, |some| {
            Ok(model.embed_texts(self.prompts.tensor(some, &self.device)))
        })
    }

    /// The held-out pictures against all of their captions, if there are any.
    fn measure(&self, parameters: &Parameters, frozen: &Frozen) -> Result<Option<Measured>> {
        let examples = &self.data.held_out;
        if examples.is_empty() {
            return Ok(None);
        }
        let model = parameters.frozen_model();
        let own = examples.iter().flat_map(|example| &example.captions);
        let prompts: BTreeSet<usize> = own.map(|caption| self.prompts.of(*caption, 0)).collect();
        let prompts: Vec<usize> = prompts.into_iter().collect();
        let texts = match &frozen.prompts {
            Some(embeddings) => embeddings.tensor(&prompts, &self.device),
            None => {
                let all: Vec<usize> = (0..prompts.len()).collect();
                let embeddings = self.embed_prompts(&model, &prompts)?;
                embeddings.tensor(&all, &self.device)
            }
        };
        let fresh;
        let images = match &frozen.held_out {
            Some(embeddings) => embeddings,
            None => {
                fresh = self.embed_pictures(&model, &self.held_out)?;
                &fresh
            }
        };
        let (mut loss, mut right) = (0.0, 0);
        let all: Vec<usize> = (0..examples.len()).collect();
        for some in all.chunks(RUN_TOGETHER) {
            let logits = model.logits(images.tensor(some, &self.device), texts.clone());
            let truth = some.iter().flat_map(|i| {
                let asked = prompts.iter();
                asked.map(|prompt| self.prompts.target(&examples[*i], *prompt))
            });
            let truth: Vec<f32> = truth.collect();
            let shape = [some.len(), prompts.len()];
            let targets = Tensor::from_data(TensorData::new(truth.clone(), shape), &self.device);
            loss += scalar(sigmoid_loss(logits.clone(), targets))? * some.len() as f32;
            let logits = pollster::block_on(to_vec(logits))?;
            let rows = logits.chunks_exact(prompts.len());
            for (logits, truth) in rows.zip(truth.chunks_exact(prompts.len())) {
                let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
                right += usize::from(best.is_some_and(|best| truth[best] == 1.0));
            }
        }
        Ok(Some(Measured {
            loss: loss / examples.len() as f32,
            accuracy: right as f32 / examples.len() as f32,
        }))
    }
}

/// Runs a tower over everything, some at a time.
fn embed(all: &[usize], tower: impl Fn(&[usize]) -> Result<Tensor<2>>) -> Result<Embeddings> {
    let mut embeddings = Embeddings {
        values: Vec::new(),
        hidden: 0,
    };
    for some in all.chunks(RUN_TOGETHER) {
        let rows = tower(some)?;
        embeddings.hidden = rows.dims()[1];
        embeddings.values.extend(pollster::block_on(to_vec(rows))?);
    }
    Ok(embeddings)
}

/// `[batch, 3, side, side]`.
fn pixels(values: Vec<f32>, batch: usize, device: &Device) -> Tensor<4> {
    let side = (values.len() / batch / 3).isqrt();
    Tensor::from_data(TensorData::new(values, [batch, 3, side, side]), device)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a valid template")
}

/// The progress bar; where there is no terminal, a line now and then.
struct Display {
    bar: ProgressBar,
    /// Steps and time since the last line.
    since: (usize, Instant),
    pictures: usize,
    loss: f32,
    held_out: String,
    step: usize,
    steps_took: Duration,
}

impl Display {
    /// Between two lines.
    const QUIET: Duration = Duration::from_secs(10);

    fn new(first: usize, steps: usize) -> Self {
        let bar = ProgressBar::new(steps as u64)
            .with_style(style("{bar:30} step {pos}/{len} {msg}, {eta} left"));
        bar.set_position(first as u64);
        bar.reset_eta();
        Self {
            bar,
            since: (first, Instant::now()),
            pictures: 0,
            loss: f32::NAN,
            held_out: String::new(),
            step: first,
            steps_took: Duration::ZERO,
        }
    }

    fn step(&mut self, loss: f32, pictures: usize) {
        self.step += 1;
        self.pictures += pictures;
        // Smoothed over some ten steps.
        self.loss = match self.loss.is_nan() {
            true => loss,
            false => 0.9 * self.loss + 0.1 * loss,
        };
        let elapsed = self.since.1.elapsed();
        self.bar.inc(1);
        let speed = self.pictures as f64 / elapsed.as_secs_f64();
        let message = format!(
            "loss {:.4}{}, {speed:.0} pictures/s",
            self.loss, self.held_out
        );
        if elapsed > Self::QUIET {
            self.since = (self.step, Instant::now());
            self.pictures = 0;
            if !std::io::stderr().is_terminal() {
                eprintln!("step {}: {message}", self.step);
            }
        }
        self.bar.set_message(message);
    }

    /// How fast it was, but for the time that held-out pictures took.
    fn finish(&self, pictures: usize) {
        self.bar.finish_and_clear();
        let seconds = self.steps_took.as_secs_f64();
        if pictures > 0 {
            eprintln!(
                "{pictures} pictures in {seconds:.1} s: {:.1} pictures/s",
                pictures as f64 / seconds
            );
        }
    }

    fn measured(&mut self, step: usize, measured: Option<Measured>) {
        if let Some(Measured { loss, accuracy }) = measured {
            let percent = 100.0 * accuracy;
            self.held_out = format!(", held out {percent:.1} % right");
            self.bar.suspend(|| {
                eprintln!(
                    "step {step}: held out: loss {loss:.4}, {percent:.1} % right at first guess"
                );
            });
        }
    }
}
