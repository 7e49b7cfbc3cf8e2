// swift-tools-version: 5.9

// The app. Open the folder EdgekitBench.swiftpm with Xcode, choose a team under Signing, choose a device, run.

import AppleProductTypes
import PackageDescription

let package = Package(
    name: "EdgekitBench",
    platforms: [.iOS("@IOS_VERSION@")],
    products: [
        .iOSApplication(
            name: "EdgekitBench",
            targets: ["App"],
            bundleIdentifier: "local.edgekit.bench",
            teamIdentifier: "",
            displayVersion: "1.0",
            bundleVersion: "1",
            appIcon: .placeholder(icon: .box),
            accentColor: .presetColor(.blue),
            supportedDeviceFamilies: [.pad, .phone],
            supportedInterfaceOrientations: [.portrait]
        )
    ],
    dependencies: [.package(path: "Bench")],
    targets: [
        .executableTarget(
            name: "App",
            dependencies: [.product(name: "EdgekitBench", package: "Bench")],
            path: "App"
        )
    ]
)
