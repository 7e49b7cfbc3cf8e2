import EdgekitBench
import SwiftUI

@main
struct EdgekitBenchApp: App {
    var body: some Scene {
        WindowGroup {
            BenchmarkView()
        }
    }
}
