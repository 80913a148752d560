//! Every integration test, in one binary: candle links once. Grouped by what they guarantee.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]
/// Mistakes in what the program is handed.
mod bad_input;
/// Bits by sensitivity.
mod budget;
/// What attention reads, as methods have it.
mod cache;
/// What charts say, held to records.
mod charts;
/// Chat templates as transformers renders them.
mod chat;
/// What people type and what they get.
mod cli;
/// Codebooks of the cache.
mod codebooks;
mod common;
/// Rows from every kind of file, from disk and from the Hub; files that are none.
mod data;
/// Talks, and what a judge makes of them.
mod dialogue;
/// A window of cached decoding is the full pass; a reference form is the fused one.
mod engine;
/// Metrics and evaluators, against models written by hand.
mod evaluators;
/// Every method on every family.
mod every;
/// What `transformers` computes, for every family and variant.
mod families;
/// Figures that others have printed.
mod figures;
/// What weights mean to a model.
mod fisher;
/// What must hold of every number format; codebooks.
mod formats;
/// What a gate says, and that planted defects do not pass.
mod gate;
/// Generated answers: neighbours, transformers, stop strings, filters.
mod generate;
/// GGUF's types and mixtures.
mod gguf;
/// What helps where.
mod helps;
/// Files from the Hub, against a server on loopback.
mod hub;
/// What quantization does inside a model.
mod inspect;
mod kit;
/// Every protocol of perplexity, token by token.
mod language;
/// Rounding that is learned.
mod learned;
/// What llama.cpp prints.
mod llama_cpp;
/// Items drawn from a seed, and the suite `long`.
mod made;
/// Models that do not fit memory.
mod memory;
/// Quantizers, held to their authors' code.
mod methods;
/// The built-in suite and its model.
mod microworld;
/// Every family, and repositories as they are, through the command line.
mod models;
/// Alone, among others, in another order, in shards: the same.
mod order;
/// The page, in a browser.
mod page;
/// PyTorch's checkpoints, and files that pretend to be.
mod pickles;
mod planted;
/// Published figures beside ours, and studies that reproduce them.
mod published;
/// QuaRot, held to its authors' code.
mod quarot;
/// What a recipe does, part by part, and what is none.
mod recipes;
/// Same records, same bytes.
mod report;
/// What lm-evaluation-harness asks, and Python's random numbers.
mod requests;
/// Stopped and run again is run once.
mod resume;
/// The rounding rule, bit for bit, and what every method must do.
mod rounding;
/// What lm-evaluation-harness gives.
mod scores;
/// Paired statistics, held to scipy's and statsmodels', and their promises counted.
mod stats;
/// A real model's twelve perplexities.
mod stories;
/// The documents are true, and modules use only what they may.
mod tidy;
/// Ids of sentencepiece and transformers, from whatever files a repository has.
mod tokenizers;
/// lm-evaluation-harness on texts made to trip a tokenizer.
mod traps;
/// Tasks in which the model writes; what it believes of its answers.
mod written;
/// lm-evaluation-harness's task files.
mod yaml;
