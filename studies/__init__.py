"""What makes the rows under results/ and the pages under docs/. Run one with python -m studies.NAME.

| study | what it does |
|---|---|
| train | trains the arms of a queue (queues/*.yaml), one row each |
| speed, views | measure the arms of a queue side by side, and with several views of an image |
| pages | writes the page of a queue |
| benchmarks.run, .attempts, .graphs, .page | measure speed, and write the page of benchmarks |
| prediction, prediction_page | measure `supertokenvit predict` beside the bare model, and write its page |
| scaling, dataflow | write docs/scaling.md and its neighbour, the drawing of the data flow |
| readme | keeps a run's figures, and writes the README's table of results |
| ship | puts a run's model into the package |
| answers, snapshots | write what tests compare with, after a change that is meant |
"""
