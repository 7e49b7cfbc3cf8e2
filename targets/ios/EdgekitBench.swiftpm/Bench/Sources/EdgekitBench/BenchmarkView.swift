import SwiftUI

/// Choose compute units, run, read the medians, share the result.
public struct BenchmarkView: View {
    @State private var chosen: Set<ComputeUnits> = Set(ComputeUnits.allCases)
    @State private var status = ""
    @State private var isRunning = false
    @State private var document: Document?
    @State private var file: URL?

    public init() {}

    public var body: some View {
        NavigationStack {
            Form {
                Section("Compute units") {
                    ForEach(ComputeUnits.allCases) { unit in
                        Toggle(unit.rawValue, isOn: isChosen(unit))
                    }
                }
                Section {
                    Button("Run") { Task { await run() } }.disabled(isRunning || chosen.isEmpty)
                    if !status.isEmpty { Text(status) }
                    if let file { ShareLink("Share result.json", item: file) }
                }
                ForEach(document?.measurements ?? [], id: \.artifact.name) { measurement in
                    Section(measurement.artifact.name) {
                        ForEach(measurement.runs, id: \.computeUnits) { run in
                            LabeledContent(run.computeUnits.rawValue, value: figure(run))
                        }
                        if let error = measurement.error { Text(error.message) }
                    }
                }
            }
            .navigationTitle("edgekit")
        }
    }

    private func isChosen(_ unit: ComputeUnits) -> Binding<Bool> {
        Binding(
            get: { chosen.contains(unit) },
            set: { isOn in
                if isOn { chosen.insert(unit) } else { chosen.remove(unit) }
            }
        )
    }

    private func figure(_ run: Document.Run) -> String {
        run.median.map { String(format: "%.3f ms", $0) } ?? run.error?.message ?? "–"
    }

    @MainActor
    private func run() async {
        isRunning = true
        defer { isRunning = false }
        status = "running: leave the app in front"
        let units = ComputeUnits.allCases.filter(chosen.contains)
        do {
            let found = try await Task.detached(priority: .userInitiated) {
                try await Benchmark.run(Fixture.load(), units: units)
            }.value
            let place = URL.documentsDirectory.appendingPathComponent("result.json")
            try found.json().write(to: place)
            (document, file, status) = (found, place, "written to result.json")
        } catch {
            status = String(describing: error)
        }
    }
}
