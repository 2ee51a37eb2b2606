// divvy simulate device: what a mix of tenants would get of a device, from the model of
// src/arbiter.
#pragma once

#include <CLI/CLI.hpp>

namespace divvy::cli {

// Adds `device` to the `simulate` subcommand.
void AddSimulateDevice(CLI::App& simulate);

}  // namespace divvy::cli
