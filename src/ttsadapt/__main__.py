from ttsadapt.cli import main

main()
