//! HTTP for operators: metrics, status, explain.
