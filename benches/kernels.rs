//! How fast the kernels are, beside what the device could do: `cargo bench --bench kernels [-- [--quick] [--gpu] [MODEL_FOLDER]]`.
//!
//! Prints markdown tables: for each kernel of ViT-B/16-224 and So400m/14-384 billions of operations per second (a multiplication
//! and an addition are two), on the GPU in the form that its kind of adapter gets, and on the CPU. The ceiling is a loop of
//! multiply-adds in registers on the same device. With a checkpoint's folder also the latency of pictures and labels, one and several at
//! once, on the CPU with all cores and with one.
//! `--quick` leaves So400m out and takes fewer samples, for software adapters; `--gpu` leaves the CPU out.

use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use siglip_web::kernels::{self, Activation, Dtype, Epilogue, Numbers, PackedMatrix, PackedWeight};
use siglip_web::{Backend, Classifier, LoadOptions, Picture, device};

/// An encoder's sizes.
struct Encoder {
    name: &'static str,
    tokens: usize,
    hidden: usize,
    heads: usize,
    intermediate: usize,
}

const VIT_B: Encoder = Encoder {
    name: "ViT-B/16-224",
    tokens: 196,
    hidden: 768,
    heads: 12,
    intermediate: 3072,
};
const SO400M: Encoder = Encoder {
    name: "So400m/14-384",
    tokens: 729,
    hidden: 1152,
    heads: 16,
    intermediate: 4304,
};

struct Bench {
    quick: bool,
    device: Device,
    numbers: Numbers,
}

impl Bench {
    fn tensor<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        let values = self.numbers.values(shape.iter().product());
        kernels::from_vec(values, shape, &self.device)
    }

    /// The median time of a run, many of which are started before the device is waited for.
    fn time<T>(&self, mut run: impl FnMut() -> T) -> Duration {
        let sync = || self.device.sync().expect("the device works");
        drop(run());
        sync();
        let mut sample = |runs: u32| {
            let began = Instant::now();
            for _ in 0..runs {
                drop(run());
            }
            sync();
            began.elapsed() / runs
        };
        let (span, samples) = match self.quick {
            true => (Duration::from_millis(20), 3),
            false => (Duration::from_millis(50), 7),
        };
        let one = sample(1).max(Duration::from_nanos(1));
        let runs = (span.as_secs_f64() / one.as_secs_f64()).clamp(1.0, 1000.0) as u32;
        let mut times: Vec<Duration> = (0..samples).map(|_| sample(runs)).collect();
        times.sort();
        times[times.len() / 2]
    }

    fn row(&self, name: &str, operations: f64, ceiling: Option<f64>, time: Duration) {
        let rate = operations / time.as_secs_f64() / 1e9;
        let share = ceiling.map_or(String::new(), |c| format!(" {:.0} % |", 100.0 * rate / c));
        println!(
            "| {name} | {:.3} ms | {rate:.1} |{share}",
            1e3 * time.as_secs_f64()
        );
    }

    fn encoder(&mut self, encoder: &Encoder, ceiling: Option<f64>) {
        let Encoder {
            name,
            tokens,
            hidden,
            heads,
            intermediate,
        } = *encoder;
        let share = if ceiling.is_some() {
            " of the ceiling |"
        } else {
            ""
        };
        println!("\n| {name} | time | GFLOP/s |{share}");
        println!(
            "|---|---|---|{}",
            if ceiling.is_some() { "---|" } else { "" }
        );
        for (input, output, residual) in [
            (hidden, hidden, true),
            (hidden, intermediate, false),
            (intermediate, hidden, true),
        ] {
            let x = self.tensor([1, tokens, input]);
            let bias = self.tensor([output]);
            let added = residual.then(|| self.tensor([1, tokens, output]));
            let epilogue = || match added.clone() {
                Some(added) => Epilogue::add::<3>(added),
                None => Epilogue::Activation(Activation::GeluTanh),
            };
            let values = self.numbers.values(output * input);
            let operations = 2.0 * (tokens * input * output) as f64;
            for dtype in Dtype::ALL {
                let time = match dtype {
                    Dtype::F32 => {
                        let shape = [output, input];
                        let weight: Tensor<2> =
                            kernels::from_vec(values.clone(), shape, &self.device);
                        self.time(|| {
                            kernels::linear(x.clone(), weight.clone(), bias.clone(), epilogue())
                        })
                    }
                    _ => {
                        let matrix = PackedMatrix::pack(dtype, input, &values);
                        let weight = PackedWeight::new(matrix, &self.device);
                        self.time(|| kernels::linear(x.clone(), &weight, bias.clone(), epilogue()))
                    }
                };
                let finish = if residual { "+ residual" } else { "GELU" };
                let name = format!("linear {input} → {output}, {finish}, {}", dtype.as_str());
                self.row(&name, operations, ceiling, time);
            }
        }
        let x = self.tensor([1, tokens, hidden]);
        let weights = [(); 3].map(|()| self.tensor([hidden, hidden]));
        let biases = [(); 3].map(|()| self.tensor([hidden]));
        let time = self.time(|| kernels::projections(x.clone(), weights.clone(), biases.clone()));
        let operations = 6.0 * (tokens * hidden * hidden) as f64;
        self.row("query, key and value, f32", operations, ceiling, time);
        let [key, value] = [(); 2].map(|()| self.tensor([1, tokens, hidden]));
        let time = self.time(|| kernels::attention(x.clone(), key.clone(), value.clone(), heads));
        let operations = 4.0 * (tokens * tokens * hidden) as f64;
        self.row("attention", operations, ceiling, time);
        let [gamma, beta] = [(); 2].map(|()| self.tensor([hidden]));
        let time = self.time(|| kernels::layer_norm(x.clone(), gamma.clone(), beta.clone(), 1e-6));
        self.row("layer norm", 8.0 * (tokens * hidden) as f64, ceiling, time);
    }

    fn model(&self, folder: &str) {
        println!("\n| {folder} | first | median |\n|---|---|---|");
        let mut classifier = Classifier::load_with(folder, &self.device, &LoadOptions::default())
            .expect("the checkpoint loads");
        let runs = if self.quick { 3 } else { 21 };
        let timed = |run: &mut dyn FnMut(usize)| {
            let mut times: Vec<f64> = (0..runs)
                .map(|i| {
                    let began = Instant::now();
                    run(i);
                    1e3 * began.elapsed().as_secs_f64()
                })
                .collect();
            let first = times[0];
            times.sort_by(f64::total_cmp);
            format!("{first:.1} ms | {:.1} ms", times[times.len() / 2])
        };
        // Each another one, or the cache would answer.
        let mut images = |first: usize, count: usize| {
            let pixels: Vec<_> = (0..count)
                .map(|i| {
                    let [low, high] = ((first * count + i) as u16).to_le_bytes();
                    [low, high, count as u8, 255].repeat(64 * 64)
                })
                .collect();
            let pictures: Vec<_> = pixels
                .iter()
                .map(|pixels| Picture::Rgba {
                    width: 64,
                    height: 64,
                    pixels,
                })
                .collect();
            let embedded = pollster::block_on(classifier.embed_images_async(&pictures, &()));
            embedded.expect("embeddings");
        };
        println!("| picture | {} |", timed(&mut |i| images(i, 1)));
        println!("| 8 pictures | {} |", timed(&mut |i| images(i, 8)));
        let mut texts = |first: usize, count: usize| {
            let texts: Vec<_> = (0..count)
                .map(|i| format!("a photo of {} of {count} cats", first * count + i))
                .collect();
            classifier.embed_text(&texts).expect("embeddings");
        };
        println!("| label | {} |", timed(&mut |i| texts(i, 1)));
        println!("| 10 labels | {} |", timed(&mut |i| texts(i, 10)));
    }
}

/// Multiply-adds in registers and nothing else.
#[cfg(feature = "webgpu")]
mod ceiling {
    use burn::backend::Cube;
    use burn::backend::wgpu::{CubeDim, KernelSource, SourceKernel, SourceTemplate};
    use burn::cubecl::prelude::{CubeCount, ExecutionMode, KernelId};
    use burn::cubecl::server::KernelArguments;
    use burn::tensor::Tensor;

    const STEPS: usize = 512;
    const WORKGROUP: usize = 64;

    struct MultiplyAdd;

    impl KernelSource for MultiplyAdd {
        fn source(&self) -> SourceTemplate {
            let text = "
@group(0) @binding(0) var<storage, read_write> y: array<vec4<f32>>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let a = y[id.x];
    var s = array<vec4<f32>, 8>();
    for (var i = 0u; i < STEPSu; i++) {
        s[0] = fma(s[0], a, a); s[1] = fma(s[1], a, a); s[2] = fma(s[2], a, a); s[3] = fma(s[3], a, a);
        s[4] = fma(s[4], a, a); s[5] = fma(s[5], a, a); s[6] = fma(s[6], a, a); s[7] = fma(s[7], a, a);
    }
    y[id.x] = s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7];
}";
            SourceTemplate::new(text.replace("STEPS", &STEPS.to_string()))
        }

        fn id(&self) -> KernelId {
            KernelId::new::<Self>().mode(ExecutionMode::Unchecked)
        }

        fn lang(&self) -> &'static str {
            "wgsl"
        }
    }

    /// Operations of a run over `x`.
    pub fn operations(x: &Tensor<1>) -> f64 {
        (x.dims()[0] * 8 * 2 * STEPS) as f64
    }

    pub fn run(x: &Tensor<1>) {
        let primitive = x.clone().try_into_primitive::<Cube>();
        let primitive = primitive.expect("a tensor on the GPU");
        let workgroups = x.dims()[0] / (4 * WORKGROUP);
        primitive.client.launch(
            Box::new(SourceKernel::new(
                MultiplyAdd,
                CubeDim::new_1d(WORKGROUP as u32),
            )),
            CubeCount::Static(workgroups as u32, 1, 1),
            KernelArguments::new().with_buffer(primitive.handle.clone().binding()),
        );
    }
}

fn main() {
    let (mut quick, mut gpu_only, mut folder) = (false, false, None);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            // Cargo's own.
            "--bench" => {}
            "--quick" => quick = true,
            "--gpu" => gpu_only = true,
            _ => folder = Some(argument),
        }
    }
    let encoders: &[Encoder] = if quick { &[VIT_B] } else { &[VIT_B, SO400M] };
    #[cfg(feature = "webgpu")]
    match device::open(Backend::WebGpu) {
        Err(error) => println!("no GPU: {}", error.message()),
        Ok(device) => {
            let mut bench = Bench {
                quick,
                device,
                numbers: Numbers(1),
            };
            println!("## GPU: {}", device::adapter().unwrap_or_default());
            let x = bench.tensor([if quick { 1 << 14 } else { 1 << 22 }]);
            let time = bench.time(|| ceiling::run(&x));
            let rate = ceiling::operations(&x) / time.as_secs_f64() / 1e9;
            println!("\nCeiling: {rate:.0} GFLOP/s of f32 multiply-adds in registers");
            for encoder in encoders {
                bench.encoder(encoder, Some(rate));
            }
            if let Some(folder) = &folder {
                bench.model(folder);
            }
        }
    }
    if gpu_only {
        return;
    }
    let device = device::open(Backend::Cpu).expect("there is always a CPU");
    let mut bench = Bench {
        quick,
        device,
        numbers: Numbers(1),
    };
    println!("\n## CPU, all cores");
    for encoder in encoders {
        bench.encoder(encoder, None);
    }
    if let Some(folder) = &folder {
        bench.model(folder);
        println!("\n## CPU, one core");
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        one.expect("a thread").install(|| bench.model(folder));
    }
}
