//! What the decoder does with numbers, below any idea of a model: products of matrices and fused loops over rows.
pub mod hadamard;
pub mod int8;
pub mod linalg;
pub mod matmul;
pub mod panels;
pub mod rows;
pub mod share;
pub mod strip;
