//! What the decoder does with numbers, below any idea of a model: products of matrices and fused loops over rows.
pub mod matmul;
pub mod rows;
