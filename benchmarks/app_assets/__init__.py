"""Make the app's assets: students, trajectories and measured numbers in `app/assets`.

    python -m benchmarks.app_assets [--only watch break systems images] [--force]

Existing files are kept unless ``--force`` is given. All seeds are fixed; the files take at most 5 MB in total. A
manifest records each file's checksum, seed, torch version and metrics.
"""
