// swift-tools-version: 5.9

// What measures: the artifacts, the benchmark, the view, and the tests. `swift test` runs them on a Mac.

import PackageDescription

let package = Package(
    name: "Bench",
    platforms: [.iOS("@IOS_VERSION@"), .macOS("@MACOS_VERSION@")],
    products: [.library(name: "EdgekitBench", targets: ["EdgekitBench"])],
    targets: [
        .target(name: "EdgekitBench", resources: [.copy("Fixture")]),
        .testTarget(name: "EdgekitBenchTests", dependencies: ["EdgekitBench"]),
    ]
)
