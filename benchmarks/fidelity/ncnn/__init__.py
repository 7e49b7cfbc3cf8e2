"""ncnn's own benchmark, run on the guest: its networks, a guest Python with ncnn's wheel, the program that runs."""
