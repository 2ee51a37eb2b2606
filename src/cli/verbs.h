// The verbs of divvy. Each Add function declares one subcommand; see app.h for the rules.
#pragma once

#include <CLI/CLI.hpp>

namespace divvy::cli {

void AddRun(CLI::App& app);
void AddPs(CLI::App& app);
void AddDevices(CLI::App& app);
void AddEvents(CLI::App& app);
void AddTop(CLI::App& app);
void AddWhy(CLI::App& app);
void AddSet(CLI::App& app);
void AddShare(CLI::App& app);
void AddCdi(CLI::App& app);
void AddPause(CLI::App& app);  // pause and resume
void AddLoad(CLI::App& app);
void AddRecord(CLI::App& app);
void AddAdvise(CLI::App& app);
void AddVerify(CLI::App& app);
void AddVerifyCompute(CLI::App& verify);
void AddDashboard(CLI::App& app);
void AddSmi(CLI::App& app);
void AddDoctor(CLI::App& app);
void AddDaemon(CLI::App& app);
void AddVersion(CLI::App& app);

// In libraries of their own: divvy_cli_simulate_cluster, divvy_cli_simulate_device.
void AddSimulateCluster(CLI::App& simulate);
void AddSimulateDevice(CLI::App& simulate);

}  // namespace divvy::cli
