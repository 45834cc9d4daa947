//! Starting a device, and hearing when it fails.

use serde::{Deserialize, Serialize};

/// A device that was started, or any of burn's.
pub use burn::tensor::Device;

use crate::error::Result;
use crate::kernels::check::check;

/// What the model runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The processor: burn-flex natively, our own SIMD in the browser.
    Cpu,
    /// The GPU: WebGPU in the browser, Vulkan, Metal or DX12 natively.
    WebGpu,
}

impl Backend {
    /// The word of the JavaScript API.
    pub fn as_str(self) -> &'static str {
        match self {
            Backend::Cpu => "cpu",
            Backend::WebGpu => "webgpu",
        }
    }
}

/// Starts the device and checks what it computes against the CPU.
///
/// # Errors
/// `unsupported` if this build or machine has no GPU; `device-lost` if it computes wrongly.
pub async fn start(backend: Backend) -> Result<Device> {
    let device = match backend {
        Backend::Cpu => Device::flex(),
        Backend::WebGpu => gpu::start().await?,
    };
    check(&device).await?;
    // A shader that the driver refused is reported apart from the results it didn't write.
    fault(&device)?;
    Ok(device)
}

/// [`start`], waiting for it.
///
/// # Errors
/// As [`start`].
#[cfg(not(target_family = "wasm"))]
pub fn open(backend: Backend) -> Result<Device> {
    pollster::block_on(start(backend))
}

/// What a model can be loaded on: a [`Backend`], which is started, or a device that was.
#[cfg(not(target_family = "wasm"))]
pub trait IntoDevice {
    /// The device.
    ///
    /// # Errors
    /// As [`start`].
    fn into_device(self) -> Result<Device>;
}

#[cfg(not(target_family = "wasm"))]
impl IntoDevice for Backend {
    fn into_device(self) -> Result<Device> {
        open(self)
    }
}

#[cfg(not(target_family = "wasm"))]
impl IntoDevice for Device {
    fn into_device(self) -> Result<Device> {
        Ok(self)
    }
}

#[cfg(not(target_family = "wasm"))]
impl IntoDevice for &Device {
    fn into_device(self) -> Result<Device> {
        Ok(self.clone())
    }
}

/// Fails if the device has reported an error since it was started.
///
/// # Errors
/// `out-of-memory` or `device-lost`.
pub fn fault(device: &Device) -> Result<()> {
    if *device == Device::flex() {
        return Ok(());
    }
    gpu::fault()
}

/// The name of the GPU that was started, as its driver has it; browsers tell none.
pub fn adapter() -> Option<String> {
    gpu::adapter()
}

#[cfg(all(feature = "webgpu", target_family = "wasm"))]
pub(crate) use gpu::handle;

#[cfg(feature = "webgpu")]
mod gpu {
    use std::sync::{Arc, Mutex};

    use async_lock::Mutex as AsyncMutex;
    use burn::tensor::Device;

    use crate::error::{Code, Error, Result};
    use crate::kernels::{Form, set_form};

    /// The one GPU device of this program: the runtime can't set the same adapter up twice.
    static DEVICE: AsyncMutex<Option<Device>> = AsyncMutex::new(None);
    /// The same as the graphics library has it.
    static HANDLE: Mutex<Option<wgpu::Device>> = Mutex::new(None);
    /// Its name.
    static ADAPTER: Mutex<Option<String>> = Mutex::new(None);
    /// The first error that the GPU reported.
    static FAULT: Mutex<Option<Error>> = Mutex::new(None);

    /// Runs what burn's crates register before anything else runs. The linker, unless it finds this call, wraps every export of the
    /// module in one of its own: each call from JavaScript would run all of it again, which takes milliseconds.
    #[cfg(target_family = "wasm")]
    #[allow(unsafe_code)]
    fn construct() {
        unsafe extern "C" {
            fn __wasm_call_ctors();
        }
        static ONCE: std::sync::Once = std::sync::Once::new();
        // SAFETY: the linker makes it, without arguments; it runs once.
        ONCE.call_once(|| unsafe { __wasm_call_ctors() });
    }

    pub async fn start() -> Result<Device> {
        #[cfg(target_family = "wasm")]
        construct();
        // Held while the adapter answers: whoever asks meanwhile waits and shares.
        let mut started = DEVICE.lock().await;
        if let Some(device) = started.clone() {
            // A device whose memory ran out once goes on with what finds room.
            FAULT
                .lock()
                .expect("no panic while held")
                .take_if(|fault| fault.code() == Code::OutOfMemory);
            fault()?;
            return Ok(device);
        }
        let (device, setup) = Device::wgpu_options()
            .init_with_setup_async()
            .await
            .map_err(|error| {
                Error::unsupported(format!(
                    "no GPU could be started ({error}); use the CPU (backend \"cpu\")"
                ))
            })?;
        // The runtime's own handlers panic; a page must get an error that it can show.
        setup.device.on_uncaptured_error(Arc::new(|error| {
            let (code, what) = match &error {
                wgpu::Error::OutOfMemory { .. } => (Code::OutOfMemory, "the GPU is out of memory"),
                _ => (Code::DeviceLost, "the GPU refused an operation"),
            };
            report(Error::new(
                code,
                format!("{what} ({error}); load the model again on the CPU (backend \"cpu\") or choose a smaller one"),
            ));
        }));
        setup.device.set_device_lost_callback(|reason, message| {
            report(Error::device_lost(format!(
                "the GPU was taken away ({reason:?}: {message}); load the model again"
            )));
        });
        let adapter = setup.adapter.get_info();
        // A software adapter: natively lavapipe and its like, in a browser the fallback adapter.
        set_form(match adapter.device_type {
            wgpu::DeviceType::Cpu => Form::Registers,
            _ => Form::Tiles,
        });
        *ADAPTER.lock().expect("no panic while held") = Some(adapter.name);
        *HANDLE.lock().expect("no panic while held") = Some(setup.device);
        *started = Some(device.clone());
        Ok(device)
    }

    /// The device as the graphics library has it, if it was started.
    #[cfg(target_family = "wasm")]
    pub fn handle() -> Option<wgpu::Device> {
        HANDLE.lock().expect("no panic while held").clone()
    }

    fn report(error: Error) {
        FAULT
            .lock()
            .expect("no panic while held")
            .get_or_insert(error);
    }

    pub fn adapter() -> Option<String> {
        ADAPTER.lock().expect("no panic while held").clone()
    }

    pub fn fault() -> Result<()> {
        match FAULT.lock().expect("no panic while held").clone() {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }
}

#[cfg(not(feature = "webgpu"))]
mod gpu {
    use burn::tensor::Device;

    use crate::error::{Error, Result};

    pub async fn start() -> Result<Device> {
        Err(Error::unsupported(
            "this build has no GPU support; use the CPU (backend \"cpu\")",
        ))
    }

    pub fn adapter() -> Option<String> {
        None
    }

    pub fn fault() -> Result<()> {
        Ok(())
    }
}
