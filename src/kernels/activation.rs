//! The non-linearity of the MLPs.

/// The non-linearity of the MLPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `gelu_pytorch_tanh`: GELU in its tanh form, `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`.
    GeluTanh,
    /// `gelu`: GELU itself, `x/2 · (1 + erf(x / √2))`, which timm computes for most of its SigLIPs.
    Gelu,
}
