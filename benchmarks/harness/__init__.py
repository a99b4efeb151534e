"""What all benchmarks share: command line, resumed results, tables, pictures and plots. See `benchmark.Benchmark`."""
